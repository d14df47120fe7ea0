// Echo with npm `ws`; argv: port, processes.
const cluster = require('node:cluster');
const { WebSocketServer } = require('ws');

const [port, processes] = process.argv.slice(2).map(Number);
if (processes > 1 && cluster.isPrimary) {
  for (let i = 0; i < processes; i += 1) cluster.fork();
} else {
  const server = new WebSocketServer({ host: '127.0.0.1', port, backlog: 4096, perMessageDeflate: false });
  server.on('connection', (socket) => {
    socket.on('error', () => {});
    socket.on('message', (data, binary) => socket.send(data, { binary }));
  });
}
