// The two kinds of panel that Grafana keeps in its core, as near as a canvas comes to them.
import { FieldType, type DataFrame, type GrafanaTheme2 } from '@grafana/data';
import { useEffect, useRef, type ReactNode } from 'react';

type Place = { w: number; h: number; from: number; to: number; step: number; theme: GrafanaTheme2 };
type Draw = (context: CanvasRenderingContext2D, x: (time: number) => number, height: number) => void;

const LEFT = 76;
const BOTTOM = 22;
const SCHEMES: Record<string, [number, number]> = { Oranges: [24, 100], Blues: [210, 90] };  // hue, saturation

function Canvas({ w, h, from, to, theme, draw }: Omit<Place, 'step'> & { draw: Draw }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const context = canvas.current!.getContext('2d')!;
    const x = (time: number) => LEFT + ((time - from) / (to - from)) * (w - LEFT - 8);
    context.font = '12px Inter, sans-serif';
    context.fillStyle = theme.colors.text.secondary;
    context.textAlign = 'center';
    for (let time = Math.ceil(from / 60000) * 60000; time < to; time += 60000) {
      context.fillText(new Date(time).toISOString().slice(11, 16), x(time), h - 6);
    }
    draw(context, x, h - BOTTOM);
  }, []);
  return <canvas ref={canvas} width={w} height={h} />;
}

const seconds = (le: string) => (le === '+Inf' ? 'more' : Number(le) < 1 ? `${+(Number(le) * 1000).toFixed(2)} ms` : `${Number(le)} s`);

const upTo = ({ labels: { le } }: any) => (le === '+Inf' ? Infinity : Number(le));

export function Heatmap({ series, scheme, step, ...place }: Place & { series: any[]; scheme: string }) {
  const buckets = [...series].sort((one, other) => upTo(one) - upTo(other));
  const counts = buckets.map(({ values }, n) => {
    const lower = new Map(n ? buckets[n - 1].values : []);
    return values.map(([time, value]: [number, string]) => [time, Number(value) - Number(lower.get(time) ?? 0)]);
  });
  const used = counts.map((row) => row.some(([, count]: number[]) => count > 0.5));
  const [first, last] = [Math.max(0, used.indexOf(true) - 1), used.lastIndexOf(true)];
  const most = Math.max(...counts.flat().map(([, count]) => count));
  const [hue, saturation] = SCHEMES[scheme] ?? SCHEMES.Oranges;
  const draw: Draw = (context, x, height) => {
    const tall = height / (last - first + 1);
    for (let row = first; row <= last; row++) {
      const top = height - (row - first + 1) * tall;
      context.fillStyle = place.theme.colors.text.secondary;
      context.textAlign = 'right';
      context.fillText(seconds(buckets[row].labels.le), LEFT - 8, Math.max(top + 4, 12));
      for (const [time, count] of counts[row]) {
        if (count < 0.01) continue;
        const weight = Math.sqrt(count / most);
        context.fillStyle = `hsl(${hue}, ${saturation}%, ${12 + 68 * weight}%)`;
        context.fillRect(x((time - step) * 1000), top, x(time * 1000) - x((time - step) * 1000) - 1, tall - 1);
      }
    }
  };
  return <Canvas {...place} draw={draw} />;
}

export function Timeline({ frames, mappings, step, ...place }: Place & { frames: DataFrame[]; mappings: any[] }) {
  const draw: Draw = (context, x, height) => {
    const tall = height / frames.length;
    frames.forEach((frame, row) => {
      const [times, values] = [FieldType.time, FieldType.number].map((kind) => frame.fields.find(({ type }) => type === kind)!.values);
      context.fillStyle = place.theme.colors.text.primary;
      context.textAlign = 'right';
      context.fillText(frame.name ?? '', LEFT - 8, row * tall + tall / 2 + 4);
      let begun = 0;
      values.forEach((value, n) => {
        if (n + 1 < values.length && values[n + 1] === value) return;
        const state = mappings[0].options[String(value)];
        const [left, right] = [x(times[begun]), Math.min(x(times[n] + step * 1000), place.w - 8)];
        begun = n + 1;
        if (!state) return;
        context.fillStyle = place.theme.visualization.getColorByName(state.color);
        context.globalAlpha = 0.8;
        context.fillRect(left, row * tall + tall * 0.1, right - left, tall * 0.8);
        context.globalAlpha = 1;
        context.fillStyle = '#111';
        context.textAlign = 'left';
        if (right - left > 60) context.fillText(state.text, left + 6, row * tall + tall / 2 + 4);
      });
    });
  };
  return <Canvas {...place} draw={draw} />;
}

// In place of a scrollbar, whose package esbuild and Grafana understand differently: nothing scrolls in a picture.
export default ({ children }: { children: ReactNode }) => <>{children}</>;
