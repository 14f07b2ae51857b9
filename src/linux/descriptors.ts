/** Duplicates file descriptors for other threads: all threads of a process share one descriptor table. */
import { checked, declare } from './libc.ts';

const F_DUPFD_CLOEXEC = 1030;

const fcntl = declare<[fd: number, command: number, argument: number]>('fcntl', 'int', ['int', 'int', 'int']);

/** Returns a second descriptor of the same open file or socket. It stays open if the first is closed. */
export function duplicate(fd: number): number {
  return checked(fcntl, [fd, F_DUPFD_CLOEXEC, 3], 'fcntl F_DUPFD_CLOEXEC');
}
