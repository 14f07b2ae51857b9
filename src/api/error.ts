/** An error, as the body of an answer or as a field of a job (docs/errors.md). */
import * as Type from 'typebox';
import { type ErrorCode, errorKinds } from '../base/error-codes.ts';
import { code, named, text } from './schema.ts';

export const errorDocument = named('Error', {
  code: code(Object.keys(errorKinds) as ErrorCode[]),
  message: text('names the thing and the numbers that disagree'),
  hint: Type.Optional(text('the next step')),
});
