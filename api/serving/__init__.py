"""The API's listeners: a unix socket, and TCP in the clear on loopback or by TLS."""
