// Draws the panels of a dashboard, with their data, where their gridPos says.
import {
  applyFieldOverrides, createTheme, dateTime, FieldType, getFieldDisplayValues, identityOverrideProcessor,
  standardEditorsRegistry, standardFieldConfigEditorRegistry, standardTransformers, standardTransformersRegistry, ThemeContext,
  toDataFrame, transformDataFrame, type DataFrame,
} from '@grafana/data';
import { BarGauge, BigValue, GlobalStyles, PanelChrome, Table, TimeSeries } from '@grafana/ui';
import { useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { firstValueFrom } from 'rxjs';
import { Heatmap, Timeline } from './byhand';

const { panels, marks, from, to, width } = (window as any).page;
const theme = createTheme({ colors: { mode: 'dark' } });
const range = { from: dateTime(from), to: dateTime(to), raw: { from: dateTime(from), to: dateTime(to) } };
const CUSTOM = `drawStyle lineInterpolation lineWidth fillOpacity gradientMode showPoints pointSize spanNulls insertNulls
  barAlignment axisPlacement axisLabel axisColorMode axisCenteredZero axisBorderShow scaleDistribution hideFrom stacking
  thresholdsStyle lineStyle axisSoftMax align cellOptions inspect`.split(/\s+/).map((name) => `custom.${name}`);
const KNOWN = ['unit', 'min', 'max', 'decimals', 'thresholds', 'mappings', 'color', 'displayName', 'noValue', 'links'];

const item = (id: string): any => ({
  id, path: id.replace('custom.', ''), isCustom: id.startsWith('custom.'), name: id, editor: () => null, override: () => null,
  process: identityOverrideProcessor, shouldApply: () => true, settings: {}, getItemsCount: () => 0, description: '',
});
standardEditorsRegistry.setInit(() => []);
standardFieldConfigEditorRegistry.setInit(() => [...KNOWN, ...CUSTOM].map(item));
const { mergeTransformer, organizeFieldsTransformer } = standardTransformers;
standardTransformersRegistry.setInit(() => [mergeTransformer, organizeFieldsTransformer].map((each: any) => ({
  id: each.id, name: each.name, transformation: () => Promise.resolve(each), editor: () => null,
})) as any);

const named = (legend: string, labels: Record<string, string>) =>
  legend === '__auto' ? Object.values(labels).join(' ') : legend.replace(/\{\{(\w+)\}\}/g, (_, label) => labels[label] ?? '');

function table(refId: string, several: boolean, series: any[]): DataFrame {
  const labels = [...new Set(series.flatMap((each) => Object.keys(each.labels)))];
  return toDataFrame({
    refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: series.map((each) => each.values[0][0] * 1000) },
      ...labels.map((name) => ({ name, type: FieldType.string, values: series.map((each) => each.labels[name]) })),
      { name: several ? `Value #${refId}` : 'Value', type: FieldType.number, values: series.map((each) => Number(each.values[0][1])) },
    ],
  });
}

function line(each: any, step: number): DataFrame {
  const known = new Map(each.values.map(([time, value]: [number, string]) => [time, Number(value)]));
  const first = Math.min(...(known.keys() as any));
  const count = each.values.length > 1 ? Math.floor((to / 1000 - first) / step) + 1 : 1;
  const times = Array.from({ length: count }, (_, n) => Number((first + n * step).toFixed(3)));
  const values = times.map((time) => (Number.isNaN(known.get(time)) ? null : known.get(time) ?? null));  // a gap where it is missing
  const name = named(each.legend, each.labels);
  return toDataFrame({
    name, refId: each.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: times.map((time) => time * 1000) },
      { name: 'Value', type: FieldType.number, values, labels: each.labels, config: { displayNameFromDS: name } },
    ],
  });
}

async function frames(panel: any): Promise<DataFrame[]> {
  const tables = panel.targets?.filter((each: any) => each.format === 'table') ?? [];
  const made = tables.length
    ? tables.map(({ refId }: any) => table(refId, tables.length > 1, panel.series.filter((each: any) => each.refId === refId)))
    : panel.series.map((each: any) => line(each, panel.step));
  const data = panel.transformations ? await firstValueFrom(transformDataFrame(panel.transformations, made)) : made;
  return applyFieldOverrides({
    data, fieldConfig: structuredClone(panel.fieldConfig), replaceVariables: (text: string) => text, theme, timeZone: 'utc',
    fieldConfigRegistry: standardFieldConfigEditorRegistry as any,
  });
}

function draw(panel: any, data: DataFrame[], w: number, h: number) {
  const { defaults } = panel.fieldConfig;
  const numbers = data.flatMap((frame) => frame.fields.filter(({ type }) => type === FieldType.number));
  if (panel.type !== 'stat' && !numbers.some(({ values }) => values.some((each) => each !== null))) {
    return <div style={{ textAlign: 'center', paddingTop: h / 2 - 12, color: theme.colors.text.secondary }}>{defaults.noValue}</div>;
  }
  if (panel.type === 'timeseries') {
    const fields = { x: (field: any) => field.type === FieldType.time, y: (field: any) => field.type === FieldType.number };
    return (
      <TimeSeries frames={data} width={w} height={h} timeRange={range as any} timeZone="utc" legend={panel.options.legend} fields={fields as any}>
        {(config) => { config.addHook('draw', mark); return null; }}
      </TimeSeries>
    );
  }
  const displays = getFieldDisplayValues({
    data, fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions ?? { calcs: ['lastNotNull'] },
    replaceVariables: (text: string) => text, theme, timeZone: 'utc', sparkline: panel.options.graphMode === 'area',
  });
  if (panel.type === 'stat') {
    const { display, sparkline } = displays[0];
    const { colorMode, graphMode } = panel.options;
    return <BigValue value={{ ...display, title: '' }} theme={theme} width={w} height={h} {...{ sparkline, colorMode, graphMode }} />;
  }
  if (panel.type === 'bargauge') {
    const each = Math.min(48, h / displays.length);
    return displays.map(({ display, field }, n) => (
      <BarGauge key={n} value={display} field={field} theme={theme} width={w} height={each - 8} orientation={'horizontal' as any}
        displayMode={panel.options.displayMode} namePlacement={panel.options.namePlacement} itemSpacing={8} showUnfilled />
    ));
  }
  if (panel.type === 'table') return <Table data={data[0]} width={w} height={h} initialSortBy={panel.options.sortBy} />;
  if (panel.type === 'heatmap') return <Heatmap series={panel.series} step={panel.step} scheme={panel.options.color.scheme} {...{ w, h, from, to, theme }} />;
  return <Timeline frames={data} mappings={defaults.mappings} step={panel.step} {...{ w, h, from, to, theme }} />;
}

function mark(plot: any) {
  for (const { time, color } of marks) {
    const x = Math.round(plot.valToPos(time, 'x', true));
    plot.ctx.strokeStyle = theme.visualization.getColorByName(color);
    plot.ctx.setLineDash([4, 4]);
    plot.ctx.lineWidth = 1;
    plot.ctx.beginPath();
    plot.ctx.moveTo(x, plot.bbox.top);
    plot.ctx.lineTo(x, plot.bbox.top + plot.bbox.height);
    plot.ctx.stroke();
  }
}

function Panel({ panel }: any) {
  const [data, setData] = useState<DataFrame[]>();
  useEffect(() => void (panel.targets && frames(panel).then(setData)), []);
  const { x, y, w, h } = panel.gridPos;
  const column = (width - 16 + 8) / 24;
  const [wide, high] = [w * column - 8, h * 38 - 8];
  const place = { position: 'absolute', left: 8 + x * column, top: 52 + y * 38, width: wide, height: high } as const;
  if (panel.type === 'row') {
    return <div style={{ ...place, font: '500 16px Inter, sans-serif', paddingTop: 4 }}>{panel.collapsed ? '›' : '⌄'} {panel.title}</div>;
  }
  if (panel.type === 'text') return <div style={{ ...place, padding: 8 }}>{panel.options.content.replaceAll('**', '')}</div>;
  const byHand = ['heatmap', 'state-timeline'].includes(panel.type) ? ' (drawn by hand)' : '';
  return (
    <div style={place}>
      <PanelChrome title={panel.title + byHand} width={wide} height={high}>
        {(innerWidth, innerHeight) => data && <>{draw(panel, data, innerWidth, innerHeight)}</>}
      </PanelChrome>
    </div>
  );
}

createRoot(document.getElementById('root')!).render(
  <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    <div style={{ position: 'absolute', left: 8, top: 8, font: '500 20px Inter, sans-serif' }}>
      Octet <span style={{ fontSize: 13, color: theme.colors.text.secondary }}>a preview: Grafana's components, without a Grafana server</span>
    </div>
    {panels.map((panel: any) => <Panel key={panel.id} panel={panel} />)}
  </ThemeContext.Provider>
);
