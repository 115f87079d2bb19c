/* Foreign code in the gateway's process: when a connection is accepted, it tries the port in
   INTRUDER_PORT and says on standard error with which errno that ended. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void intrude(void)
{
    struct sockaddr_in to = { .sin_family = AF_INET };
    to.sin_port = htons(atoi(getenv("INTRUDER_PORT")));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int it = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int ended = connect(it, (struct sockaddr *)&to, sizeof to) == 0 ? 0 : errno;
    close(it);
    dprintf(2, "connecting ended with %d.\n", ended);
}

int accept4(int listener, struct sockaddr *address, socklen_t *length, int flags)
{
    int (*next)(int, struct sockaddr *, socklen_t *, int) = dlsym(RTLD_NEXT, "accept4");
    int accepted = next(listener, address, length, flags);
    int saved = errno;
    if (accepted >= 0)
        intrude();
    errno = saved;
    return accepted;
}
