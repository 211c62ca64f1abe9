// What our scripts use of htmx, which the page loads as a script of its own.
declare const htmx: {
  process(element: Element): void;
  swap(target: string, content: string, how: { swapStyle: string }): void;
  ajax(verb: string, path: string, how: { target: string; swap: string }): Promise<void>;
};
