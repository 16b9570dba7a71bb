"""Realtime in a FastAPI application of your own: clients at /socket.io/, and messages from your Python code.

    pip install '.[server]' && insforge-realtime migrate                      # with DATABASE_URL set
    DATABASE_URL=postgresql://… REALTIME_JWT_SECRET=… python examples/fastapi_app.py

Then tell everybody who is subscribed to `order:123` about it:

    curl -X POST http://127.0.0.1:8000/orders/123/ship

Under another ASGI server it works, too (`uvicorn examples.fastapi_app:app`), but then without the fast door that
`realtime.websocket_class` is: see docs/embedding.md.
"""

import os

import uvicorn
from fastapi import FastAPI

from insforge_realtime import Realtime

# Both settings are in the environment here; Realtime(database_url=…, jwt_secret=…) says them in the code.
realtime = Realtime()
app = FastAPI(lifespan=realtime.lifespan)


@app.post("/orders/{order}/ship")
async def ship(order: str) -> dict[str, str | None]:
    """Do what there is to do, and say so. Whoever may subscribe to the channel, by your policies, hears of it."""
    message_id = await realtime.publish(f"order:{order}", "shipped", {"id": order, "status": "shipped"})
    return {"messageId": message_id}


# Last: what no route of yours takes is Realtime's, /socket.io/ and /api/health.
app.mount("/", realtime.asgi)


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(os.environ.get("PORT", "8000")),
        ws=realtime.websocket_class,  # the fast door
        timeout_graceful_shutdown=5,
        proxy_headers=False,  # REALTIME_TRUSTED_PROXIES says which proxies to believe
    )
