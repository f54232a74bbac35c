from typing import Any

from heartwire import Client, Server

server = Server(port=8085, jwt_secret="test-jwt-secret-of-at-least-32-bytes")


@server.on_message
def echo(client: Client, message: Any) -> None:
    client.send_json(message)


server.run()
