/** Names of the hours, days, weeks, months and years in a time zone. */
export type Period = 'hourly' | 'daily' | 'weekly' | 'monthly' | 'yearly';

const dayMs = 24 * 3600 * 1000;

export class Calendar {
  readonly #format: Intl.DateTimeFormat;

  /** `timeZone` is an IANA name; default: this machine's. Throws RangeError if it is unknown. */
  constructor(timeZone?: string) {
    this.#format = new Intl.DateTimeFormat('en-US', {
      ...(timeZone === undefined ? {} : { timeZone }),
      calendar: 'gregory',
      numberingSystem: 'latn',
      era: 'short',
      year: 'numeric',
      month: '2-digit',
      day: '2-digit',
      hour: '2-digit',
      hourCycle: 'h23',
      timeZoneName: 'longOffset',
    });
  }

  /**
   * Returns the period of a time (milliseconds since 1970): `2024-10-27 02 GMT+02:00`, `2024-10-27`, `2024-W43`,
   * `2024-10`, `2024`. The hour that is repeated when summer time ends has two names.
   */
  nameOf(period: Period, time: number): string {
    const parts: Partial<Record<string, string>> = {};
    for (const { type, value } of this.#format.formatToParts(time)) parts[type] = value;
    const { year = '', month = '', day = '', hour = '', timeZoneName = '' } = parts;
    switch (period) {
      case 'hourly':
        return `${year}-${month}-${day} ${hour} ${timeZoneName}`;
      case 'daily':
        return `${year}-${month}-${day}`;
      case 'weekly':
        return weekOf(Date.UTC(Number(year), Number(month) - 1, Number(day)));
      case 'monthly':
        return `${year}-${month}`;
      case 'yearly':
        return year;
    }
  }
}

/** ISO 8601: a week belongs to the year of its Thursday. */
function weekOf(midnight: number): string {
  const sinceMonday = (new Date(midnight).getUTCDay() + 6) % 7;
  const thursday = new Date(midnight + (3 - sinceMonday) * dayMs);
  const year = thursday.getUTCFullYear();
  const week = 1 + Math.floor((thursday.getTime() - Date.UTC(year, 0, 1)) / (7 * dayMs));
  return `${year}-W${String(week).padStart(2, '0')}`;
}
