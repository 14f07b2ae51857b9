// Lint with types, and the layers of ARCHITECTURE.md: a room imports from the rooms below it, never up.
import importX from 'eslint-plugin-import-x';
import tseslint from 'typescript-eslint';

/** The rooms of src/, top to bottom; rooms on one line may not import each other. */
const layers = [
  ['bin'],
  ['cli'],
  ['daemon'],
  ['backup', 'restore'],
  ['vault'],
  ['tracking'],
  ['freeze'],
  ['nbd'],
  ['devices'],
  ['filesystems'],
  ['block'],
  ['linux'],
  ['base'],
];

const layerRules = layers.flatMap((rooms, level) =>
  rooms.map((room) => {
    const forbidden = layers
      .slice(0, level + 1)
      .flat()
      .filter((other) => other !== room);
    // The command talks to the daemon through its API alone; those of vaults work without it (below).
    if (room === 'cli') forbidden.push('backup', 'restore', 'vault', 'tracking', 'freeze', 'nbd', 'devices');
    return {
      files: [`src/${room}/**/*.ts`],
      ignores: ['**/*.test.ts', 'src/cli/vault/**'],
      rules: {
        'no-restricted-imports': [
          'error',
          {
            patterns: forbidden.map((other) => ({
              regex: `^(\\.\\./)+${other}/`,
              message: `${room}/ may not import ${other}/ (see the layers in eslint.config.mjs)`,
            })),
          },
        ],
      },
    };
  }),
);

/** The commands of vaults read stores and write devices themselves, also on a rescue system without a daemon. */
const offlineCommands = {
  files: ['src/cli/vault/**/*.ts'],
  ignores: ['**/*.test.ts'],
  rules: {
    'no-restricted-imports': [
      'error',
      {
        patterns: ['bin', 'backup', 'tracking', 'freeze', 'nbd', 'linux'].map((other) => ({
          regex: `^(\\.\\./)+${other}/`,
          message: `cli/vault/ may not import ${other}/ (see the layers in eslint.config.mjs)`,
        })),
      },
    ],
  },
};

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

const oneDoorToTheKernel = [
  {
    files: ['src/**/*.ts'],
    ignores: ['src/linux/**'],
    rules: { 'no-restricted-modules': 'off', 'no-restricted-syntax': ['error', kernelCalls] },
  },
  {
    files: ['src/**/*.ts'],
    ignores: ['src/linux/**', '**/*.test.ts', '**/*.contract.ts'],
    rules: { 'no-restricted-syntax': ['error', kernelCalls, repeatableNumbers] },
  },
];

export default tseslint.config(
  { ignores: ['build/', 'node_modules/'] },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    plugins: { 'import-x': importX },
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      'import-x/no-cycle': 'error',
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
  ...layerRules,
  offlineCommands,
  ...oneDoorToTheKernel,
);
