// The buttons. Most ask the server's debug routes to bend the stream of this visitor, and of no other.

const ORDERS = {
  drop: 'drop-connections',
  refuse: 'refuse?ms=10000',
  repeat: 'repeat?count=5',
  swap: 'swap',
  silence: 'silence?ms=8000',
};

export function bindTrouble({ client, connector, incidents, forget }) {
  const stop = document.querySelector('[data-trouble="stop"]');
  const label = () => {
    stop.textContent = connector.state === 'closed' ? 'Connect again' : 'Stop the stream';
  };
  const own = {
    reload: () => location.reload(),
    forget,
    stop() {
      if (connector.state === 'closed') connector.connect();
      else connector.stop();
    },
  };
  for (const button of document.querySelectorAll('[data-trouble]')) {
    const kind = button.dataset.trouble;
    button.addEventListener('click', () => {
      if (kind in own) own[kind]();
      else void order(kind, client, incidents);
      label();
    });
  }
  // Not only the button closes the stream.
  setInterval(label, 500);
}

async function order(kind, client, incidents) {
  const url = new URL(`debug/${ORDERS[kind]}`, document.baseURI);
  url.searchParams.set('client', client);
  // Known before the first consequence arrives: the cut may be faster than the answer.
  incidents.order(kind);
  try {
    const answer = await fetch(url, { method: 'POST' });
    if (!answer.ok) incidents.failed(answer.status === 404 ? 'this server runs without --debug-routes' : `the server answered ${answer.status}`);
  } catch {
    incidents.failed('the server cannot be reached');
  }
}
