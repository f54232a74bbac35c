# The Linux system calls of the reactor that Cython does not declare.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
        EPOLLRDHUP
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL
        EPOLL_CLOEXEC
    int epoll_create1(int flags) noexcept
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event) noexcept
    int epoll_wait(int epfd, epoll_event *events, int most, int timeout) noexcept


cdef extern from "sys/socket.h" nogil:
    ctypedef unsigned int socklen_t
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        unsigned short ss_family
    enum:
        AF_INET
        AF_INET6
        SHUT_WR
        SOCK_NONBLOCK
        SOCK_CLOEXEC
        SOL_SOCKET
        SO_ERROR
    int accept4(int fd, sockaddr *address, socklen_t *size, int flags) noexcept
    int shutdown(int fd, int how) noexcept
    int getsockopt(int fd, int level, int name, void *value, socklen_t *size) noexcept
    int getpeername(int fd, sockaddr *address, socklen_t *size) noexcept


cdef extern from "netinet/in.h" nogil:
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr_in:
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_port
        in6_addr sin6_addr
    uint16_t ntohs(uint16_t n) noexcept


cdef extern from "sys/ioctl.h" nogil:
    enum:
        FIONREAD
    int ioctl(int fd, unsigned long request, int *value) noexcept
