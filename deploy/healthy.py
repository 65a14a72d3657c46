"""Exit with 0 when the one server in this container is ready, API or worker; with 1 and its words when it is not.

For `HEALTHCHECK`, every few seconds: run by `python -IS`, and with nothing but a socket, it takes some 20 ms.
"""

import os
import socket
import sys

API_PORT = 8000
LONGEST_S = 2.0


def ask(port: int) -> str:
    """Return the answer of a port's `/readyz`. Raises OSError, also where nobody listens."""
    with socket.create_connection(("127.0.0.1", port), LONGEST_S) as connection:
        connection.settimeout(LONGEST_S)
        connection.sendall(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode("latin-1")


def main() -> int:
    answer = "nobody is there"
    for port in (API_PORT, int(os.environ.get("REJOIN_WORKER_PORT") or 0)):
        try:
            answer = ask(port)
            break
        except ConnectionRefusedError:
            continue  # it is the other one
        except OSError as error:
            answer = str(error)
            break
    print(answer)
    return 0 if answer.partition("\r\n")[0].split(" ")[1:2] == ["200"] else 1


if __name__ == "__main__":
    sys.exit(main())
