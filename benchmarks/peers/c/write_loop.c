/* The floor: what the kernel alone costs. Accepts connections; for every line on stdin, makes a WebSocket text frame of
 * it and write()s that to each of them, one after the other. Blocking sockets, no polling, no user-space work at all.
 *
 *     write_loop COUNT
 *
 * Prints {"port": n}, accepts COUNT connections, prints {"accepted": COUNT}, writes until stdin ends. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void write_all(int fd, const char *bytes, size_t size) {
    while (size > 0) {
        ssize_t written = write(fd, bytes, size);
        if (written < 0) die("write");
        bytes += written;
        size -= (size_t)written;
    }
}

/* The header goes right before the text, which has 4 free bytes in front of it. Returns the frame's first byte. */
static char *make_frame(char *text, size_t size, size_t *frame_size) {
    size_t header = size < 126 ? 2 : 4;
    char *frame = text - header;
    frame[0] = (char)0x81;
    if (header == 2) {
        frame[1] = (char)size;
    } else {
        frame[1] = 126;
        frame[2] = (char)(size >> 8);
        frame[3] = (char)size;
    }
    *frame_size = header + size;
    return frame;
}

int main(int argc, char **argv) {
    static char buffer[4 + 65536];
    int count = argc == 2 ? atoi(argv[1]) : 0;
    if (count < 1) {
        fprintf(stderr, "usage: write_loop COUNT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);

    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 4096) < 0)
        die("listen");
    if (getsockname(listener, (struct sockaddr *)&address, &length) < 0) die("getsockname");
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);

    int *sockets = calloc((size_t)count, sizeof *sockets);
    if (!sockets) die("calloc");
    for (int i = 0; i < count; i++) {
        int one = 1;
        sockets[i] = accept(listener, NULL, NULL);
        if (sockets[i] < 0) die("accept");
        /* As asyncio, uvloop and Node do. */
        setsockopt(sockets[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    printf("{\"accepted\": %d}\n", count);
    fflush(stdout);

    while (fgets(buffer + 4, sizeof buffer - 4, stdin)) {
        size_t frame_size;
        char *frame = make_frame(buffer + 4, strcspn(buffer + 4, "\n"), &frame_size);
        for (int i = 0; i < count; i++) write_all(sockets[i], frame, frame_size);
    }
    return 0;
}
