/** A parser of server-sent events (the `text/event-stream` format of the HTML standard). */

/** Takes text in pieces of any size and returns the `data` of each complete event. */
export class EventParser {
  #rest = '';

  feed(text: string): string[] {
    this.#rest += text;
    const events = this.#rest.split('\n\n');
    this.#rest = events.pop() ?? '';
    return events.map(dataOf).filter((data) => data !== '');
  }
}

function dataOf(event: string): string {
  return event
    .split('\n')
    .filter((line) => line.startsWith('data:'))
    .map((line) => line.slice(5).replace(/^ /, ''))
    .join('\n');
}
