"""The server's protocol: input that is not HTTP at all is answered with a problem document too."""

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.problems import MALFORMED, problem


class ProblemProtocol(H11Protocol):
    """uvicorn's own, but for the answer to a request that cannot be taken apart."""

    def send_400_response(self, msg: str) -> None:
        """Answer, and close: nobody knows where the next request begins."""
        answer = problem(MALFORMED, f"it is not an HTTP/1.1 request: {msg.rstrip('.').lower()}")
        headers = [*answer.raw_headers, (b"connection", b"close")]
        head = h11.Response(status_code=answer.status_code, headers=headers, reason=b"Bad Request")
        for part in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(part))
        self.transport.close()
