// Runs before the first paint, so that a chosen theme does not flash in. Without a choice the system decides.
'use strict';

(() => {
  const KEY = 'holdfast-demo:theme';
  const root = document.documentElement;
  const system = matchMedia('(prefers-color-scheme: dark)');

  const stored = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // Storage is denied: the choice holds for this page only.
    }
  };
  const present = () => root.dataset.theme ?? (system.matches ? 'dark' : 'light');
  const label = () => {
    document.getElementById('theme').textContent = present() === 'dark' ? 'Light theme' : 'Dark theme';
  };

  const choice = stored();
  if (choice === 'dark' || choice === 'light') root.dataset.theme = choice;

  document.addEventListener('DOMContentLoaded', () => {
    label();
    system.addEventListener('change', label);
    document.getElementById('theme').addEventListener('click', () => {
      const wanted = present() === 'dark' ? 'light' : 'dark';
      // Back to what the system says is no choice any more: it then follows the system again.
      const followsSystem = wanted === (system.matches ? 'dark' : 'light');
      if (followsSystem) delete root.dataset.theme;
      else root.dataset.theme = wanted;
      try {
        if (followsSystem) localStorage.removeItem(KEY);
        else localStorage.setItem(KEY, wanted);
      } catch {
        // See above.
      }
      label();
    });
  });
})();
