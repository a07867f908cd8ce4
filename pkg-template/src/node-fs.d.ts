/** The few functions of Node that we use: its own types would bring globals that browsers do not have. */
declare module 'node:fs' {
  export function openSync(path: string, flags: string): number;
  export function writeFileSync(file: number, text: string): void;
  export function fsyncSync(file: number): void;
  export function closeSync(file: number): void;
  export function renameSync(from: string, to: string): void;
  export function readFileSync(path: string, encoding: 'utf8'): string;
  export function rmSync(path: string, options: { force: boolean }): void;
}
