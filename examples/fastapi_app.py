"""Realtime in a FastAPI application of your own: clients at /socket.io/, and messages from your Python code.

    pip install '.[server]' && insforge-realtime migrate                      # with DATABASE_URL set
    DATABASE_URL=postgresql://… REALTIME_JWT_SECRET=… python examples/fastapi_app.py

Then notify everybody who is subscribed to `order:123`:

    curl -X POST http://127.0.0.1:8000/orders/123/ship

It also works under another ASGI server, or as `uvicorn examples.fastapi_app:app`, but then without the fast WebSocket,
`realtime.websocket_class`: see docs/embedding.md.
"""

import os

import uvicorn
from fastapi import FastAPI

from insforge_realtime import Realtime

# Both settings come from the environment; Realtime(database_url=…, jwt_secret=…) sets them in code.
realtime = Realtime()
app = FastAPI(lifespan=realtime.lifespan)


@app.post("/orders/{order}/ship")
async def ship(order: str) -> dict[str, str | None]:
    """Ship it, publish that, and return the message's id. Your policies decide who may subscribe, and so hear of it."""
    message_id = await realtime.publish(f"order:{order}", "shipped", {"id": order, "status": "shipped"})
    return {"messageId": message_id}


# Last: what no route of yours takes is Realtime's, /socket.io/ and /api/health.
app.mount("/", realtime.asgi)


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(os.environ.get("PORT", "8000")),
        ws=realtime.websocket_class,  # the fast WebSocket
        timeout_graceful_shutdown=5,
        proxy_headers=False,  # REALTIME_TRUSTED_PROXIES names the proxies to trust
    )
