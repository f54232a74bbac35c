#include "envelope.h"

#include "bits.h"

size_t hw_write_hex(char *out, uint64_t v) {
    static const char digits[] = "0123456789abcdef";
    size_t n = 1;
    for (uint64_t rest = v >> 4; rest; rest >>= 4) n++;
    for (size_t i = n; i--; v >>= 4) out[i] = digits[v & 15];
    return n;
}

static void two_digits(char *out, unsigned v) {
    out[0] = (char)('0' + v / 10);
    out[1] = (char)('0' + v % 10);
}

/* The date of a day counted from 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms"):
 * years begin in March, so that a leap day is the last of its year. */
static void write_date(char *out, unsigned days) {
    const unsigned shifted = days + 719468; /* since 0000-03-01 */
    const unsigned era = shifted / 146097, day_of_era = shifted % 146097;
    const unsigned year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    const unsigned day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    const unsigned month_from_march = (5 * day_of_year + 2) / 153;
    const unsigned day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    const unsigned month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
    const unsigned year = year_of_era + era * 400 + (month <= 2);
    two_digits(out, year / 100);
    two_digits(out + 2, year % 100);
    out[4] = '-';
    two_digits(out + 5, month);
    out[7] = '-';
    two_digits(out + 8, day);
}

void hw_write_instant(char *out, uint64_t unix_ms) {
    const uint64_t seconds = unix_ms / 1000;
    const unsigned ms = (unsigned)(unix_ms % 1000), of_day = (unsigned)(seconds % 86400);
    write_date(out, (unsigned)(seconds / 86400));
    out[10] = 'T';
    two_digits(out + 11, of_day / 3600);
    out[13] = ':';
    two_digits(out + 14, of_day / 60 % 60);
    out[16] = ':';
    two_digits(out + 17, of_day % 60);
    out[19] = '.';
    out[20] = (char)('0' + ms / 100);
    two_digits(out + 21, ms % 100);
    out[23] = 'Z';
}

/* The high bit of each byte that is below 0x20, a quote or a backslash; bytes from 0x80 on are none of them. */
static uint64_t special_bytes(uint64_t v) {
    const uint64_t ones = UINT64_C(0x0101010101010101), high = ones << 7;
    const uint64_t quote = v ^ ones * '"', backslash = v ^ ones * '\\';
    return ((v - ones * 0x20) | (quote - ones) | (backslash - ones)) & ~v & high;
}

bool hw_text_is_plain(const uint8_t *p, size_t n) {
    size_t i = 0;
    uint64_t special = 0;
    for (; i + 8 <= n; i += 8) special |= special_bytes(hw_load64(p + i));
    for (; i < n; i++) special |= (uint64_t)(p[i] < 0x20 || p[i] == '"' || p[i] == '\\');
    return special == 0;
}
