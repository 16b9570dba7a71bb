// What the Node peers have in common: Socket.IO over WebSocket alone, a token that is verified for each client, and one line on
// stdout, {"port": n}, once it listens. The end of stdin is the end of the process. JWT_SECRET in the environment is the key.
import { createServer } from "node:http";
import jwt from "jsonwebtoken";
import { Server } from "socket.io";

const http = createServer();
export const io = new Server(http, {
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

export function listen() {
  http.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => {
    console.log(JSON.stringify({ port: http.address().port }));
  });
}
