// better-sse on Express. Its query is that of express.mjs, as far as better-sse can: ids, resume, coding, torn, and
// keepAlive=MS for the interval of its comments. The history is an array, as in its own guide.

import { createBrotliCompress, createDeflate, createGzip } from 'node:zlib';
import { createSession, NodeHttp1Connection } from 'better-sse';
import { serveLog } from './express-routes.mjs';
import { eventAt, head, Log } from './log.mjs';

const CODINGS = { gzip: createGzip, deflate: createDeflate, br: createBrotliCompress };

/** Its connection, with what it writes compressed and flushed. */
class CompressedConnection extends NodeHttp1Connection {
  constructor(request, response, coding) {
    super(request, response, { headers: { 'Content-Encoding': coding } });
    const compressor = CODINGS[coding]();
    compressor.pipe(response);
    this.sendChunk = (chunk) => {
      compressor.write(chunk);
      compressor.flush();
    };
  }
}

const log = new Log(head);

async function stream(request, response) {
  const { ids, resume, coding, torn, keepAlive } = request.query;
  const options = { retry: 30, keepAlive: keepAlive === undefined ? null : Number(keepAlive) };
  const session = coding === undefined
    ? await createSession(request, response, options)
    : await createSession(new CompressedConnection(request, response, coding), options);

  let sent = resume === '1' ? Number(session.lastId || 0) : 0;
  let isOpen = false;
  const advance = () => session.batch((buffer) => {
    if (isOpen) buffer.dispatch();
    isOpen = false;
    while (sent < log.head) {
      sent += 1;
      const { type, id, data } = eventAt(sent);
      buffer.event(type);
      if (ids === '1') buffer.id(id);
      buffer.data(data);
      isOpen = torn === '1' && sent === log.head;
      if (!isOpen) buffer.dispatch().comment('between events');
    }
  });
  await advance();
  const end = () => response.end();
  log.addEventListener('published', advance);
  log.addEventListener('end', end);
  session.once('disconnected', () => {
    log.removeEventListener('published', advance);
    log.removeEventListener('end', end);
  });
}

serveLog(log, stream);
