/* In place of deflate.c where there is no zlib: the extension is never negotiated. */
#include "deflate.h"

#include <stdlib.h>

int hw_zip_available(void) { return 0; }

void hw_zip_free(hw_zip *z) { (void)z; }

hw_zip_peer *hw_zip_peer_new(uint8_t out_bits, uint8_t in_bits, int out_takeover, int in_takeover) {
    (void)out_bits, (void)in_bits, (void)out_takeover, (void)in_takeover;
    return NULL;
}

void hw_zip_peer_free(hw_zip_peer *peer) { (void)peer; }

hw_event_kind hw_zip_event(hw_zip *z, hw_zip_peer *peer, size_t limit, hw_event_kind kind, hw_event *ev,
                           hw_run **lent) {
    (void)z, (void)peer, (void)limit, (void)kind, (void)lent;
    ev->code = 1002;
    ev->reason = "this server does not inflate";
    return HW_EV_ERROR;
}

void hw_zip_return(hw_zip *z, hw_run *lent) {
    (void)z;
    free(lent);
}

int hw_zip_deflate(hw_zip *z, hw_zip_peer *peer, const uint8_t *p, size_t n, const uint8_t **out, size_t *len) {
    (void)z, (void)peer, (void)p, (void)n, (void)out, (void)len;
    return 0;
}
