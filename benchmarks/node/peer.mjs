// The peer: a plain Socket.IO server. Who connects brings a token, which is verified; who subscribes joins a room.
//
//     JWT_SECRET=… node peer.mjs ROOM
//
// It prints one line, {"port": n}, once it listens. Each line on stdin is a JSON array of payloads, emitted to ROOM one after
// the other in the same turn of the event loop. The end of stdin is its end.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import jwt from "jsonwebtoken";
import { Server } from "socket.io";

const room = process.argv[2];
const http = createServer();
const io = new Server(http, {
  transports: ["websocket"],
  perMessageDeflate: false,
  serveClient: false,
  pingInterval: 3_600_000,
});
io.use((socket, next) => {
  try {
    socket.data.claims = jwt.verify(socket.handshake.auth.token, process.env.JWT_SECRET, { algorithms: ["HS256"] });
    next();
  } catch (error) {
    next(error);
  }
});
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

http.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => {
  console.log(JSON.stringify({ port: http.address().port }));
});
