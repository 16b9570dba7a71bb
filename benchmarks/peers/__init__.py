"""What the server is compared with: other servers, and what nothing could be faster than.

launch.py              starts them
node/socketio.mjs      Socket.IO on Node
node/incumbent.mjs     the incumbent's pipeline, and incumbent.sql its side of the database
node/server.mjs        what these two have in common
python_socketio.py     python-socketio on uvicorn
c/write_loop.c         a loop of nothing but write()
"""
