// Where metrics go, and under which names. What is recorded when is in `observer.ts`.

import type { ConnectionState } from './options.js';

/** Names and values, as short texts. */
export type MetricLabels = Readonly<Record<string, string>>;

/** Takes metrics: this class drops them. Extend it, or pass any object with the three methods. */
export class MetricsSink {
  incCounter(_name: string, _value?: number, _labels?: MetricLabels): void {}
  setGauge(_name: string, _value: number, _labels?: MetricLabels): void {}
  observe(_name: string, _value: number, _labels?: MetricLabels): void {}
}

/** Drops everything: the default. */
export class NoOpSink extends MetricsSink {}

/** Writes each metric to the console as it comes: for development. */
export class ConsoleMetricsSink extends MetricsSink {
  readonly #prefix: string;

  constructor(options: { prefix?: string } = {}) {
    super();
    this.#prefix = options.prefix ?? '[METRICS]';
  }

  override incCounter(name: string, value = 1, labels: MetricLabels = {}): void {
    console.log(`${this.#prefix} COUNTER ${series(name, labels)} +${value}`);
  }

  override setGauge(name: string, value: number, labels: MetricLabels = {}): void {
    console.log(`${this.#prefix} GAUGE ${series(name, labels)} = ${value}`);
  }

  override observe(name: string, value: number, labels: MetricLabels = {}): void {
    console.log(`${this.#prefix} HISTOGRAM ${series(name, labels)} ${value}`);
  }
}

/** Observations that are kept of one histogram; count and sum are of all. */
const SAMPLES_MAX = 1_000;
const QUANTILES = [0.5, 0.95, 0.99] as const;

interface Histogram {
  count: number;
  sum: number;
  /** The latest. */
  readonly samples: number[];
}

/** Keeps the present values: for tests, for showing them, and for Prometheus. One sink may serve many connectors. */
export class InMemoryMetricsSink extends MetricsSink {
  readonly #counters = new Map<string, number>();
  readonly #gauges = new Map<string, number>();
  readonly #histograms = new Map<string, Histogram>();

  override incCounter(name: string, value = 1, labels: MetricLabels = {}): void {
    const key = series(name, labels);
    this.#counters.set(key, (this.#counters.get(key) ?? 0) + value);
  }

  override setGauge(name: string, value: number, labels: MetricLabels = {}): void {
    this.#gauges.set(series(name, labels), value);
  }

  override observe(name: string, value: number, labels: MetricLabels = {}): void {
    const key = series(name, labels);
    let histogram = this.#histograms.get(key);
    if (histogram === undefined) this.#histograms.set(key, (histogram = { count: 0, sum: 0, samples: [] }));
    histogram.samples[histogram.count % SAMPLES_MAX] = value;
    histogram.count += 1;
    histogram.sum += value;
  }

  /** 0 where nothing was counted. */
  getCounter(name: string, labels: MetricLabels = {}): number {
    return this.#counters.get(series(name, labels)) ?? 0;
  }

  getGauge(name: string, labels: MetricLabels = {}): number | undefined {
    return this.#gauges.get(series(name, labels));
  }

  /** The latest 1,000 observations, in no certain order. */
  getHistogram(name: string, labels: MetricLabels = {}): number[] {
    return [...(this.#histograms.get(series(name, labels))?.samples ?? [])];
  }

  reset(): void {
    this.#counters.clear();
    this.#gauges.clear();
    this.#histograms.clear();
  }

  /** All values; a metric with labels is keyed `name{label="value"}`. */
  toJSON(): {
    counters: Record<string, number>;
    gauges: Record<string, number>;
    histograms: Record<string, number[]>;
  } {
    return {
      counters: Object.fromEntries(this.#counters),
      gauges: Object.fromEntries(this.#gauges),
      histograms: Object.fromEntries([...this.#histograms].map(([key, { samples }]) => [key, [...samples]])),
    };
  }

  /** All values in Prometheus' text format; what was observed as summaries over the latest 1,000. */
  toPrometheus(): string {
    const lines: string[] = [];
    const typed = new Set<string>();
    const declare = (key: string, type: string): void => {
      const name = key.replace(/\{.*/s, '');
      if (!typed.has(name)) lines.push(`# TYPE ${name} ${type}`);
      typed.add(name);
    };
    // Series of one name must stand together.
    const sorted = <Value>(map: Map<string, Value>): [string, Value][] => [...map].sort(([a], [b]) => (a < b ? -1 : 1));
    for (const [type, values] of [['counter', this.#counters], ['gauge', this.#gauges]] as const) {
      for (const [key, value] of sorted(values)) {
        declare(key, type);
        lines.push(`${key} ${value}`);
      }
    }
    for (const [key, { count, sum, samples }] of sorted(this.#histograms)) {
      declare(key, 'summary');
      const [, name, labels] = /^([^{]*)(?:\{(.*)\})?$/s.exec(key) as unknown as [string, string, string | undefined];
      const ascending = [...samples].sort((a, b) => a - b);
      for (const quantile of QUANTILES) {
        const value = ascending[Math.min(ascending.length - 1, Math.floor(ascending.length * quantile))];
        lines.push(`${name}{${labels === undefined ? '' : `${labels},`}quantile="${quantile}"} ${value}`);
      }
      const suffix = labels === undefined ? '' : `{${labels}}`;
      lines.push(`${name}_sum${suffix} ${sum}`, `${name}_count${suffix} ${count}`);
    }
    return lines.map((line) => `${line}\n`).join('');
  }
}

export function createConsoleSink(options?: { prefix?: string }): ConsoleMetricsSink {
  return new ConsoleMetricsSink(options);
}

export function createInMemorySink(): InMemoryMetricsSink {
  return new InMemoryMetricsSink();
}

/** `name{label="value"}`, escaped as Prometheus wants it. */
function series(name: string, labels: MetricLabels): string {
  const pairs = Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
  if (pairs.length === 0) return name;
  const escape = (value: string): string =>
    String(value).replace(/[\\"\n]/g, (character) => (character === '\n' ? '\\n' : `\\${character}`));
  return `${name}{${pairs.map(([label, value]) => `${label}="${escape(value)}"`).join(',')}}`;
}

/** Numbers of states, as the gauge has them. */
const STATES = { idle: 0, connecting: 1, open: 2, retrying: 3, closed: 4 } as const;
/** Values of one label: a server may send any reason, and each value is a series for ever. */
const LABEL_VALUES_MAX = 100;

/** The client's metrics by name. A connector with a `metricsSink` has one; an app with a transport of its own may, too. */
export class ClientMetrics {
  readonly #sink: MetricsSink;
  readonly #prefix: string;
  readonly #labelValues = new Map<string, Set<string>>();

  constructor(options: { sink?: MetricsSink; prefix?: string } = {}) {
    this.#sink = options.sink ?? new NoOpSink();
    this.#prefix = options.prefix ?? 'sse_client';
  }

  getSink(): MetricsSink {
    return this.#sink;
  }

  incReconnectAttempts(reason = 'unknown'): void {
    this.#count('reconnect_attempts_total', 1, 'reason', reason);
  }

  /** Counted where the server showed that it goes on from the cursor; one that shows nothing is not counted either way. */
  incResumeSuccess(): void {
    this.#count('resume_success_total', 1);
  }

  /** `reason` is the server's code for what it cannot resume, or why the request with the cursor did not become a stream. */
  incResumeFailure(reason = 'unknown'): void {
    this.#count('resume_failure_total', 1, 'reason', reason);
  }

  incDuplicateEvents(type = 'unknown'): void {
    this.#count('duplicate_events_total', 1, 'type', type);
  }

  incOutOfOrderEvents(count = 1): void {
    this.#count('out_of_order_events_total', count);
  }

  incLivenessFailures(): void {
    this.#count('liveness_failures_total', 1);
  }

  incEventsReceived(count = 1): void {
    this.#count('events_received_total', count);
  }

  incEventsProcessed(count = 1): void {
    this.#count('events_processed_total', count);
  }

  incConnectionsOpened(): void {
    this.#count('connections_opened_total', 1);
  }

  incConnectionsClosed(reason = 'unknown'): void {
    this.#count('connections_closed_total', 1, 'reason', reason);
  }

  /** 0 idle, 1 connecting, 2 open, 3 retrying, 4 closed. */
  setConnectionState(state: ConnectionState): void {
    this.#sink.setGauge(`${this.#prefix}_connection_state`, STATES[state]);
  }

  recordEventLag(lagMs: number): void {
    this.#sink.observe(`${this.#prefix}_event_lag_ms`, lagMs);
  }

  #count(name: string, value: number, label?: string, labelValue = ''): void {
    if (value <= 0) return;
    const labels = label === undefined ? undefined : { [label]: this.#bounded(name, labelValue.slice(0, 100)) };
    this.#sink.incCounter(`${this.#prefix}_${name}`, value, labels);
  }

  #bounded(name: string, value: string): string {
    let known = this.#labelValues.get(name);
    if (known === undefined) this.#labelValues.set(name, (known = new Set()));
    if (known.size < LABEL_VALUES_MAX) known.add(value);
    return known.has(value) ? value : 'other';
  }
}

export function createClientMetrics(options?: { sink?: MetricsSink; prefix?: string }): ClientMetrics {
  return new ClientMetrics(options);
}
