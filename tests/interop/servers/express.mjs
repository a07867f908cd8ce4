// A plain Express handler that writes its events by hand, the way its query says:
//   ids=1          events have ids                       resume=1  replay begins behind Last-Event-ID, else with event 1
//   eol=CRLF       ends of lines: LF, CR or CRLF         coding    gzip, deflate or br, flushed after each event
//   piece=BYTES    the size of each write                bom=1     a byte order mark first
//   torn=1         the last event is cut off in the middle, and follows when another one is published
//   bytes=N        instead of the log: one event of N bytes in a line, one of N bytes in lines of 1,000

import { createBrotliCompress, createDeflate, createGzip } from 'node:zlib';
import { serveLog } from './express-routes.mjs';
import { eventAt, head, Log, written } from './log.mjs';

const EOL = { LF: '\n', CR: '\r', CRLF: '\r\n' };
const CODINGS = { gzip: createGzip, deflate: createDeflate, br: createBrotliCompress };

const log = new Log(head);
function stream(request, response) {
  const { ids, resume, eol = 'LF', coding, piece, bom, torn, bytes } = request.query;
  response.set({ 'Content-Type': 'text/event-stream; charset=utf-8', 'Cache-Control': 'no-cache' });
  if (coding !== undefined) response.set('Content-Encoding', coding);
  response.flushHeaders();
  const out = coding === undefined ? response : CODINGS[coding]();
  if (out !== response) out.pipe(response);
  const write = (text) => {
    const encoded = Buffer.from(text.replaceAll('\n', EOL[eol]));
    const size = Number(piece ?? encoded.length);
    for (let at = 0; at < encoded.length; at += size) out.write(encoded.subarray(at, at + size));
    if (out !== response) out.flush();
  };

  write(`${bom === '1' ? '\ufeff' : ''}retry: 30\n: hello\n\n`);
  if (bytes !== undefined) {
    const lines = 'x'.repeat(999).concat('\n').repeat(Math.ceil(bytes / 1_000)).slice(0, Number(bytes));
    write(written({ type: 'message', id: '1', data: 'x'.repeat(Number(bytes)) }, true));
    write(written({ type: 'message', id: '2', data: lines }, true));
    return;
  }
  let sent = resume === '1' ? Number(request.get('Last-Event-ID') ?? request.query.lastEventId ?? 0) : 0;
  let rest = '';
  const advance = () => {
    write(rest);
    rest = '';
    while (sent < log.head) {
      sent += 1;
      const text = written(eventAt(sent), ids === '1');
      const isTorn = torn === '1' && sent === log.head;
      write(isTorn ? text.slice(0, -3) : text);
      if (isTorn) rest = text.slice(-3);
      else write(': between events\n');
    }
  };
  advance();
  const end = () => out.end();
  log.addEventListener('published', advance);
  log.addEventListener('end', end);
  response.on('close', () => {
    log.removeEventListener('published', advance);
    log.removeEventListener('end', end);
  });
}

serveLog(log, stream);
