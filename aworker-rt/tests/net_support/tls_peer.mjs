// An HTTPS server for tests, HTTP/2 and HTTP/1.1: node tls_peer.mjs DIRECTORY NAME [h1]
// Prints its port. Ends when its standard input does.
import { readFileSync } from 'node:fs';
import http2 from 'node:http2';
import https from 'node:https';

const [directory, name, only] = process.argv.slice(2);
const options = {
  key: readFileSync(`${directory}/${name}.key`),
  cert: readFileSync(`${directory}/${name}.pem`),
  allowHTTP1: true,
  ...(only === 'tls12' ? { maxVersion: 'TLSv1.2' } : {}),
};
const sessions = new Set();

function answer(request, response) {
  sessions.add(request.httpVersionMajor === 2 ? request.stream.session : request.socket);
  const { url, method, httpVersion, headers } = request;
  if (url === '/big') {
    response.setHeader('x-version', httpVersion);
    for (let i = 0; i < 64; i++) response.write(Buffer.alloc(65536, i));
    response.end();
  } else if (url === '/reset') {
    response.writeHead(200);
    response.write('abc', () => (request.stream ? request.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR) : request.socket.destroy()));
  } else if (url === '/refuse') {
    request.stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
  } else if (url === '/goaway') {
    response.end('last');
    request.stream.session.goaway();
  } else if (url === '/hang') {
    // Never answered.
  } else {
    let length = 0;
    request.on('data', (chunk) => { length += chunk.length; });
    request.on('end', () => {
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ httpVersion, method, url, headers, length, connections: sessions.size }));
    });
  }
}

const server = only === 'h1' ? https.createServer(options, answer) : http2.createSecureServer(options, answer);
server.on('error', (error) => { console.error(error); process.exit(1); });
server.on('tlsClientError', () => {});
server.on('sessionError', () => {});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.resume().on('end', () => process.exit(0));
