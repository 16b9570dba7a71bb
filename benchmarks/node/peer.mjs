// The peer: a plain Socket.IO server with one room that everybody who connects is in.
//
// It prints one line, {"port": n}, once it listens. Each line on stdin is a JSON array of payloads, emitted one after the
// other in the same turn of the event loop. The end of stdin is its end.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, {
  transports: ["websocket"],
  perMessageDeflate: false,
  serveClient: false,
  pingInterval: 3_600_000,
});
io.on("connection", (socket) => socket.join("room"));

createInterface({ input: process.stdin })
  .on("line", (line) => {
    for (const payload of JSON.parse(line)) io.to("room").emit("tick", payload);
  })
  .on("close", () => process.exit(0));

http.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => {
  console.log(JSON.stringify({ port: http.address().port }));
});
