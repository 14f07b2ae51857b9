import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { test } from 'node:test';
import { isNoAnswer } from '../base/bounded-call.ts';
import { ProbeProcess, type ProbeQuestion } from './probe-process.ts';

/** A reader process that answers when the test tells it to. */
class FakeChild extends EventEmitter {
  readonly questions: ProbeQuestion[] = [];
  killed = false;
  connected = true;
  readonly channel = { ref: () => undefined, unref: () => undefined };
  ref(): void {}
  unref(): void {}
  send(question: ProbeQuestion, done: (error: Error | null) => void): void {
    if (this.connected) this.questions.push(question);
    done(this.connected ? null : new Error('the channel is closed'));
  }
  kill(): void {
    this.killed = true;
  }
  disconnect(): void {
    this.connected = false;
  }
  ready(): void {
    this.emit('message', { ready: true });
  }
  answer(path: string): void {
    const index = this.questions.findIndex((each) => each.path === path);
    const [question] = this.questions.splice(index, 1);
    const probed = { filesystem: undefined, table: undefined, partitions: [] };
    this.emit('message', { id: question!.id, probed });
  }
}

function probing(limits: ConstructorParameters<typeof ProbeProcess>[0]) {
  const children: FakeChild[] = [];
  const reader = new ProbeProcess(limits, () => {
    const child = new FakeChild();
    children.push(child);
    return child as unknown as ChildProcess;
  });
  return { reader, children };
}

test('a few devices are read at a time; waiting for a turn or for the process does not use up the time limit', async () => {
  const { reader, children } = probing({ limitMs: 300, atOnce: 2 });
  const answers = ['/dev/a', '/dev/b', '/dev/c'].map((path) => reader.ask(path));
  const child = children[0]!;
  await new Promise((resolve) => setTimeout(resolve, 400));
  child.ready();
  assert.deepEqual(
    child.questions.map(({ path }) => path),
    ['/dev/a', '/dev/b'],
  );
  child.answer('/dev/a');
  assert.deepEqual(
    child.questions.map(({ path }) => path),
    ['/dev/b', '/dev/c'],
  );
  child.answer('/dev/b');
  child.answer('/dev/c');
  assert.equal((await Promise.all(answers)).length, 3);
  assert.equal(children.length, 1);
});

test('a device that hangs delays no other device, and is read again only after it has answered', async () => {
  const { reader, children } = probing({ limitMs: 100, atOnce: 1 });
  const hung = reader.ask('/dev/dead');
  const child = children[0]!;
  child.ready();
  const well = reader.ask('/dev/well');
  await assert.rejects(hung, isNoAnswer);
  child.answer('/dev/well');
  await well;
  await assert.rejects(reader.ask('/dev/dead'), isNoAnswer);
  child.answer('/dev/dead');
  const again = reader.ask('/dev/dead');
  child.answer('/dev/dead');
  await again;
});

test('a process with too many hung reads is replaced, and its open questions are asked again', async () => {
  const { reader, children } = probing({ limitMs: 100, atOnce: 4, mostHung: 2 });
  const hung = [reader.ask('/dev/dead1'), reader.ask('/dev/dead2')];
  children[0]!.ready();
  await Promise.all(hung.map((each) => assert.rejects(each, isNoAnswer)));
  assert.equal(children[0]!.killed, true);
  const well = reader.ask('/dev/well');
  children[1]!.ready();
  children[1]!.answer('/dev/well');
  await well;
});

test('if the process ends, its open questions fail, and the next question starts another process', async () => {
  const { reader, children } = probing({});
  const lost = reader.ask('/dev/a');
  children[0]!.ready();
  children[0]!.emit('exit');
  await assert.rejects(lost, /ended/);
  const next = reader.ask('/dev/a');
  children[1]!.ready();
  children[1]!.answer('/dev/a');
  await next;
});

test('a process that was ended because it was idle gets no more questions', async () => {
  const { reader, children } = probing({ idleMs: 10 });
  const first = reader.ask('/dev/a');
  children[0]!.ready();
  children[0]!.answer('/dev/a');
  await first;
  const deadline = performance.now() + 5000;
  while (children[0]!.connected && performance.now() < deadline)
    await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(children[0]!.connected, false);
  const second = reader.ask('/dev/a');
  children[1]!.ready();
  children[1]!.answer('/dev/a');
  await second;
});
