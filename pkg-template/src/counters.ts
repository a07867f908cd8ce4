// What is counted, before there is a core to count it.

/** The counters before anything happened. */
export const NOTHING_COUNTED = {
  eventsReceived: 0,
  eventsDelivered: 0,
  duplicatesIgnored: 0,
  outOfOrder: 0,
  eventsMissing: 0,
  heartbeats: 0,
  reconnectCount: 0,
  connectionsOpened: 0,
  livenessFailures: 0,
  bytesReceived: 0,
  clockRegressions: 0,
} as const;
