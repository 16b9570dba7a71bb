// A plain Socket.IO server: clients bring a token, which is verified; a subscribe joins a room.
//
//     JWT_SECRET=… node socketio.mjs ROOM
//
// Prints {"port": n} once it listens. Each line on stdin is a JSON array of payloads, emitted to ROOM one after the other in
// the same turn of the event loop. The end of stdin is its end.
import { createInterface } from "node:readline";
import { io, listen } from "./server.mjs";

const room = process.argv[2];

io.on("connection", (socket) => {
  socket.on("realtime:subscribe", ({ channel }, ack) => {
    socket.join(channel);
    ack({ ok: true, channel });
  });
});

createInterface({ input: process.stdin })
  .on("line", (line) => {
    for (const payload of JSON.parse(line)) io.to(room).emit("tick", payload);
  })
  .on("close", () => process.exit(0));

listen();
