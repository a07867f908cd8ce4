// Makes the request that the core asks for, with all that an app can say about it, and shows the app its response.

import { reportUnhandled } from './errors.js';
import type { Fresh, GivenOptions, ResumedRequest } from './options.js';

/** What of the options concerns requests. None of them sees the events, so that their types do not matter here. */
export type RequestOptions = Pick<
  GivenOptions,
  'method' | 'body' | 'replayRequest' | 'resumeRequest' | 'onResponse' | 'requestInit' | 'fetch'
>;

/** Whether the request may be sent again without the app asking for it: the core's rule, for when there is no core. */
export function isRepeatable({ method = 'GET', body, replayRequest, resumeRequest }: RequestOptions): boolean {
  if (/^get$/i.test(method) || resumeRequest !== undefined) return true;
  return replayRequest === true && !(body instanceof ReadableStream);
}

/** The requests of one stream, one after the other. */
export class Requests {
  readonly #url: Fresh<string | URL>;
  readonly #options: RequestOptions & Pick<GivenOptions, 'headers'>;
  #isFirst = true;
  /** What a function gave as the URL, the last time. */
  #asked: unknown;

  constructor(url: Fresh<string | URL>, options: RequestOptions & Pick<GivenOptions, 'headers'>) {
    this.#url = url;
    this.#options = options;
  }

  /** The value that `url` or `headers` has now. */
  async ask(option: string): Promise<unknown> {
    if (option !== 'url') return fresh<unknown>(this.#options.headers);
    this.#asked = await fresh<unknown>(this.#url);
    return this.#asked;
  }

  /** The address of the stream, absolute: the last one that a function gave; empty before that. */
  get address(): string {
    const url = typeof this.#url === 'function' ? this.#asked : this.#url;
    if (url === undefined) return '';
    try {
      return new URL(String(url), typeof location === 'undefined' ? undefined : location.href).href;
    } catch {
      return String(url);
    }
  }

  /** See `sendRequest`. */
  send(url: string, base: RequestInit, cursor: string): ReturnType<typeof sendRequest> {
    const isFirst = this.#isFirst;
    this.#isFirst = false;
    return sendRequest(this.#options, url, base, cursor, isFirst);
  }

  /** The stream was closed: another one begins with the next request. */
  closed(): void {
    this.#isFirst = true;
  }
}

/**
 * Sends one request: `base` holds what the core knows (headers, signal, credentials), `isFirst` says that the stream
 * begins with it. Answers with the response and what the app decided about it.
 */
async function sendRequest(
  options: RequestOptions,
  url: string,
  base: RequestInit,
  cursor: string,
  isFirst: boolean,
): Promise<Response | readonly [Response, unknown]> {
  const { resumeRequest, onResponse } = options;
  const resumed = resumeRequest === undefined || (isFirst && cursor === '') ? undefined : await resumeRequest(cursor);
  const method = resumed?.method ?? options.method;
  const init: RequestInit & { duplex?: 'half' } = { ...options.requestInit, ...base };
  if (method !== undefined) {
    init.method = method;
    if (!/^(get|head)$/i.test(method)) {
      init.body = await fresh(resumed?.body !== undefined ? resumed.body : options.body) ?? null;
      // Fetch wants to be told that a stream is sent before the answer is read.
      if (init.body instanceof ReadableStream) init.duplex = 'half';
    }
  }
  new Headers(resumed?.headers).forEach((value, name) => (base.headers as Headers).set(name, value));
  // The stream may have been stopped while the app was asked.
  base.signal?.throwIfAborted();
  const send = options.fetch ?? fetch;
  const response = await send(addressOf(resumed, url), init);
  if (onResponse === undefined) return response;
  try {
    return [response, await onResponse(response)];
  } catch (error) {
    reportUnhandled(error);
    return response;
  }
}

/** A relative address starts from that of the stream. */
function addressOf(resumed: ResumedRequest | undefined, url: string): string {
  return resumed?.url === undefined ? url : new URL(resumed.url, url).href;
}

function fresh<T>(value: Fresh<T>): T | Promise<T> {
  return typeof value === 'function' ? (value as () => T | Promise<T>)() : value;
}
