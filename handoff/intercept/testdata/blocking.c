/* A server that blocks in accept(2), as many do. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
	inet_pton(AF_INET, "127.0.0.1", &sa.sin_addr);
	int one = 1, l = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(l, (struct sockaddr *)&sa, sizeof sa) || listen(l, 5)) {
		perror("bind");
		return 1;
	}
	for (;;) {
		int c = accept(l, 0, 0);
		if (c < 0) {
			perror("accept");
			return 1; /* EAGAIN: the listener does not block */
		}
		char buf[4096];
		if (read(c, buf, sizeof buf) > 0) {
			const char *r = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
			if (write(c, r, strlen(r)) < 0)
				perror("write");
		}
		shutdown(c, SHUT_WR);
		while (read(c, buf, sizeof buf) > 0)
			;
		close(c);
	}
}
