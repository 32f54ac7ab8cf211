/** What an engine does after a process of this program ends: which exit statuses are worth another run. */

/** A failure of the file system or the network, which may pass. */
export const FAULT_STATUS = 4;

/** A signal stopped it; it continues where it stopped. */
export const STOPPED_STATUS = 5;

/** Statuses after which another run would end in the same way: a verdict, a wrong plan, a damaged source, a bug. */
export const FATAL_STATUSES: readonly number[] = [1, 2, 3, 70];
