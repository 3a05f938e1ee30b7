import { Readable } from "node:stream";

/** What was pushed and has not been read yet; for one reader. */
export class Queue<T> extends Readable {
  constructor() {
    super({ objectMode: true, read() {} });
  }

  override push(item: T | null): boolean {
    return super.push(item);
  }

  end(): void {
    this.push(null);
  }
}
