/* Does the core use sockets by itself? It does where the reactor is: on Linux. Elsewhere a link of another
 * make carries the bytes, no connection has a descriptor (hw_conn.fd is -1), and what would use one answers
 * -ENOTSOCK. HW_NO_REACTOR makes such a build on Linux too. */
#ifndef HW_SOCKETS_H
#define HW_SOCKETS_H

#include <errno.h>

#if defined(__linux__) && !defined(HW_NO_REACTOR)
#define HW_SOCKETS 1
#include <sys/socket.h>
#include <sys/uio.h>
#else
#define HW_SOCKETS 0
#endif

#endif
