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
  throws(TypeError, () => new PerformanceMark('m', 5));
  throws(TypeError, () => performance.measure('m', { detail: 1 }));
  throws(TypeError, () => performance.measure('m', 'navigationStart'));
});
fact('the clock steps by 5 microseconds', () => {
  for (let i = 0; i < 100; i++) {
    const steps = performance.now() / 0.005;
    holds(Math.abs(steps - Math.round(steps)) < 1e-3, `${steps} steps`);
  }
});

/** What an observer gets next. */
function observed(options) {
  return new Promise((resolve) => {
    const observer = new PerformanceObserver((list, self, rest) => {
      observer.disconnect();
      resolve({ names: list.getEntries().map((entry) => entry.name), list, isSelf: self === observer, rest });
    });
    observer.observe(options);
  });
}

fact('observers get entries in a task, by type', async () => {
  const both = observed({ entryTypes: ['mark', 'measure', 'unknown'] });
  const measures = observed({ type: 'measure' });
  performance.mark('late', { startTime: 9 });
  performance.mark('early', { startTime: 1 });
  performance.measure('between', 'early', 'late');
  const { names, list, isSelf, rest } = await both;
  alike([names, isSelf, rest], [['early', 'between', 'late'], true, { droppedEntriesCount: 0 }]);
  alike([list.getEntriesByType('measure').length, list.getEntriesByName('late', 'mark').length, list.getEntriesByName('late', 'measure').length], [1, 1, 0]);
  alike((await measures).names, ['between']);
  alike((await observed({ type: 'mark', buffered: true })).names, ['early', 'late']);
  performance.clearMarks();
  performance.clearMeasures();
});
fact('records can be taken, and an observer let go', async () => {
  let calls = 0;
  const observer = new PerformanceObserver(() => calls++);
  observer.observe({ type: 'mark' });
  performance.mark('x');
  alike(observer.takeRecords().map((entry) => entry.name), ['x']);
  performance.mark('y');
  observer.disconnect();
  performance.mark('z');
  await new Promise((resolve) => setTimeout(resolve, 1));
  same(calls, 0);
  performance.clearMarks();
});
fact('what to observe is checked', () => {
  const observer = new PerformanceObserver(() => {});
  throws(TypeError, () => new PerformanceObserver());
  throws(TypeError, () => new PerformanceObserver({}));
  throws(TypeError, () => observer.observe());
  throws(TypeError, () => observer.observe({ entryTypes: ['mark'], type: 'mark' }));
  throws(TypeError, () => observer.observe({ entryTypes: ['mark'], buffered: true }));
  observer.observe({ type: 'mark' });
  throws('InvalidModificationError', () => observer.observe({ entryTypes: ['mark'] }));
  observer.disconnect();
  alike(PerformanceObserver.supportedEntryTypes, ['mark', 'measure', 'resource']);
  holds(PerformanceObserver.supportedEntryTypes === PerformanceObserver.supportedEntryTypes && Object.isFrozen(PerformanceObserver.supportedEntryTypes));
});
end();
