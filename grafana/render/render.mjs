// Asks a Prometheus for all that the dashboard shows, and draws it with Grafana's components in a Chromium.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { build } from 'esbuild';

const option = (name, usual) => process.argv.find((each) => each.startsWith(`--${name}=`))?.split('=')[1] ?? usual;
const prometheus = option('prometheus', 'http://127.0.0.1:9090');
const to = Number(option('to', Date.now() / 1000));
const from = to - Number(option('seconds', 900));
const scrape = Number(option('scrape', 10));
const upstream = option('upstream', '');  // open the rows below the others, and this upstream's
const width = 1680;
const here = new URL('.', import.meta.url).pathname;

const dashboard = JSON.parse(readFileSync(`${here}../octet.json`));
const step = Math.max(scrape, Math.round((to - from) / 240));
const chosen = {
  __rate_interval: `${Math.max(step + scrape, 4 * scrape)}s`, __range: `${Math.round(to - from)}s`,
  job: option('job', 'octet'),
};

async function ask(path, parameters) {
  const answer = await fetch(`${prometheus}/api/v1/${path}`, { method: 'POST', body: new URLSearchParams(parameters) });
  const { status, data, error } = await answer.json();
  if (status !== 'success') throw new Error(`${parameters.query}: ${error}`);
  return data.result.map((each) => ({ labels: each.metric, values: each.values ?? [each.value] }));
}

const fill = (text, own) => text.replace(/\$\{?(\w+)\}?/g, (_, name) => own[name] ?? chosen[name] ?? '.*');

async function series(panel, own) {
  const wide = panel.maxDataPoints ? Math.max(scrape, Math.round((to - from) / panel.maxDataPoints)) : step;
  const asked = panel.targets?.map(async (target) => {
    const query = fill(target.expr, { ...own, __rate_interval: `${Math.max(wide + scrape, 4 * scrape)}s` });
    const found = target.instant ? await ask('query', { query, time: to })
      : await ask('query_range', { query, start: from, end: to, step: wide });
    return found.map((each) => ({ ...each, refId: target.refId, legend: target.legendFormat, format: target.format }));
  });
  return { step: wide, series: (await Promise.all(asked ?? [])).flat() };
}

const panels = [];
let below = 0;
for (const panel of dashboard.panels) {
  const own = panel.repeat ? { [panel.repeat]: upstream || '(one for each)' } : {};
  const moved = (each) => ({ ...each, title: fill(each.title, own), gridPos: { ...each.gridPos, y: each.gridPos.y + below } });
  panels.push({ ...moved(panel), ...(await series(panel, own)), collapsed: panel.collapsed && !upstream });
  if (panel.collapsed && upstream) {
    for (const each of panel.panels) panels.push({ ...moved(each), ...(await series(each, own)) });
    below += Math.max(...panel.panels.map((each) => each.gridPos.y + each.gridPos.h)) - panel.gridPos.y - 1;
  }
}
const marks = [];
for (const { expr, iconColor, useValueForTime } of dashboard.annotations.list) {
  for (const { values } of await ask('query_range', { query: fill(expr, {}), start: from, end: to, step: scrape })) {
    const times = useValueForTime ? values.map((each) => Number(each[1]) / 1000) : values.map((each) => each[0]);
    const beginnings = times.filter((time, place) => place === 0 || time - times[place - 1] > 3 * scrape);
    for (const time of beginnings) if (time >= from) marks.push({ time: time * 1000, color: iconColor });
  }
}

const out = option('out', `${here}out`);
mkdirSync(out, { recursive: true });
await build({
  entryPoints: [`${here}page.tsx`], bundle: true, jsx: 'automatic', outfile: `${out}/page.js`, define: { 'process.env.NODE_ENV': '"production"' },
  loader: { '.svg': 'dataurl', '.png': 'dataurl', '.woff2': 'dataurl', '.ttf': 'dataurl' }, logLevel: 'error', minify: true,
  alias: { 'react-custom-scrollbars-2': `${here}byhand.tsx` },
});
const height = 38 * Math.max(...panels.map(({ gridPos: { y, h } }) => y + h)) + 72;
const data = JSON.stringify({ panels, marks, from: from * 1000, to: to * 1000, width }).replaceAll('<', '\\u003c');
writeFileSync(`${out}/page.html`, `<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="page.css"><body><div id="root"></div>
<script>window.page = ${data}</script><script src="page.js"></script>`);
execFileSync('chromium', [
  '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', `--window-size=${width},${height}`,
  '--virtual-time-budget=20000', `--screenshot=${out}/dashboard.png`, `file://${out}/page.html`,
], { stdio: 'ignore' });
