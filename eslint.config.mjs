// Lint with types. The layers of ARCHITECTURE.md are held by .dependency-cruiser.mjs.
import tseslint from 'typescript-eslint';

/** Only linux/ calls the kernel beyond what Node offers. */
const kernelCalls = {
  selector: "ImportDeclaration[source.value='koffi']",
  message: 'koffi is used in src/linux/ alone, the one door to the kernel',
};

/** OpenSSL's generator repeats itself in a virtual machine that was put back to a memory snapshot. */
const repeatableNumbers = {
  selector: 'ImportSpecifier[imported.name=/^(randomBytes|randomUUID|randomFill|randomFillSync)$/]',
  message: 'ids, keys and nonces come from src/base/random.ts',
};

/** `{ Type }` brings 159 KB into a bundle, `* as Type` 13. Types that are computed from others bring 91 KB more. */
const smallTypeBox = {
  selector:
    "ImportDeclaration[source.value='typebox'] > ImportSpecifier, " +
    "MemberExpression[object.name='Type'][property.name=/^(Record|Partial|Required|Omit|Pick|KeyOf|Evaluate)$/]",
  message:
    "write import * as Type from 'typebox', and use the pieces of src/api/schema.ts (docs/dependencies.md)",
};

const oneDoorToTheKernel = [
  {
    files: ['src/**/*.ts'],
    ignores: ['src/linux/**'],
    rules: {
      'no-restricted-modules': 'off',
      'no-restricted-syntax': ['error', kernelCalls, smallTypeBox],
    },
  },
  {
    files: ['src/**/*.ts'],
    ignores: ['src/linux/**', '**/*.test.ts'],
    rules: { 'no-restricted-syntax': ['error', kernelCalls, repeatableNumbers, smallTypeBox] },
  },
];

export default tseslint.config(
  { ignores: ['build/', 'node_modules/'] },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      eqeqeq: 'error',
      'no-console': 'error',
    },
  },
  {
    // node:test's test() returns a promise that the runner itself awaits.
    files: ['**/*.test.ts', 'test/**/*.ts', 'bench/**/*.ts'],
    rules: { '@typescript-eslint/no-floating-promises': 'off', 'no-console': 'off' },
  },
  { files: ['src/bin/**/*.ts', 'src/cli/**/*.ts', 'scripts/**/*.ts'], rules: { 'no-console': 'off' } },
  ...oneDoorToTheKernel,
);
