// The clock, marks and measures. https://w3c.github.io/user-timing/

import { fact, end, same, alike, holds, throws } from './facts.js';

fact('now goes forward from the time origin', () => {
  const first = performance.now();
  holds(first > 0 && performance.now() >= first);
  holds(Math.abs(performance.timeOrigin + performance.now() - Date.now()) < 1000);
  alike(Object.keys(performance.toJSON()), ['timeOrigin']);
});
fact('marks and measures are kept in order', () => {
  const mark = performance.mark('b', { startTime: 20, detail: { a: 1 } });
  performance.mark('a', { startTime: 10 });
  alike([mark.name, mark.entryType, mark.startTime, mark.duration, mark.detail], ['b', 'mark', 20, 0, { a: 1 }]);
  const measure = performance.measure('m', 'a', 'b');
  alike([measure.startTime, measure.duration, measure.detail], [10, 10, null]);
  alike(performance.getEntriesByType('mark').map((entry) => entry.name), ['a', 'b']);
  alike(performance.getEntriesByName('m').length, 1);
  same(performance.measure('n', { start: 5, duration: 2 }).duration, 2);
  same(performance.measure('n', { end: 5, duration: 2 }).startTime, 3);
  performance.clearMarks('a');
  performance.clearMeasures();
  alike(performance.getEntries().map((entry) => entry.name), ['b']);
  performance.clearMarks();
  same(performance.getEntries().length, 0);
});
fact('what does not exist or contradicts itself is refused', () => {
  throws('SyntaxError', () => performance.measure('m', 'missing'));
  throws(TypeError, () => performance.mark('m', { startTime: -1 }));
  throws(TypeError, () => performance.measure('m', { start: 1, end: 2, duration: 3 }));
  throws(TypeError, () => performance.measure('m', { start: 1 }, 'end'));
  throws(TypeError, () => performance.mark());
});
end();
