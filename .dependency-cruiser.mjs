// The rooms of ARCHITECTURE.md: a room imports from the rooms below it, never up, and no import leads in a circle.
// Imports of types count too: two files that need each other's types are one thing, or there is a third one.

/** The rooms of src/, top to bottom; rooms on one line do not import each other. */
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
  ['api'],
  ['base'],
];

const inRoom = (rooms) => `^src/(?:${rooms.join('|')})/`;

/** The commands that work on vaults without the daemon, and the files that they share. */
const vaultCommands =
  '^src/cli/(?:vault/|commands/(?:points|diff|restore|mount|umount|export|forget|vault|verify-point)(?:/|\\.ts$))';

/** Files that a command loads when it runs. They import the code of vaults as usual. */
const loadedLater =
  '^src/cli/(?:commands/verify-point|vault/(?:library|restore-library|create-vault|point-document))\\.ts$';

const layerRules = layers.flatMap((rooms, level) =>
  rooms.map((room) => ({
    name: `${room}-imports-downwards`,
    comment: `Files of src/${room}/ import from their own room and the rooms below it. See the layers in .dependency-cruiser.mjs.`,
    severity: 'error',
    from: { path: inRoom([room]), pathNot: '\\.test\\.ts$' },
    to: {
      path: inRoom(
        layers
          .slice(0, level + 1)
          .flat()
          .filter((other) => other !== room)
          .concat('none'),
      ),
    },
  })),
);

/** The rooms of the backup engine, top to bottom. What they share lies in src/backup itself. */
const engineRooms = ['prepare', 'run', 'vault', 'ledger', 'copy'];

const engineRules = engineRooms.slice(1).map((room, i) => ({
  name: `backup-${room}-imports-downwards`,
  comment: `Files of src/backup/${room}/ import from no room above it. The ledger and the copying threads know nothing of each other.`,
  severity: 'error',
  from: { path: `^src/backup/${room}/`, pathNot: '\\.test\\.ts$' },
  to: {
    path: `^src/backup/(?:${[...engineRooms.slice(0, i + 1), ...(room === 'ledger' ? ['copy'] : [])].join('|')})/`,
  },
}));

/** @type {import('dependency-cruiser').IConfiguration} */
export default {
  forbidden: [
    ...layerRules,
    ...engineRules,
    {
      name: 'command-uses-the-api',
      comment:
        'dattocli talks to the daemon through its API alone. The commands of vaults work without the daemon.',
      severity: 'error',
      from: { path: '^src/cli/', pathNot: [vaultCommands, '\\.test\\.ts$'] },
      to: { path: inRoom(['backup', 'restore', 'vault', 'tracking', 'freeze', 'nbd', 'devices']) },
    },
    {
      name: 'vault-commands-stay-above-the-kernel',
      severity: 'error',
      from: { path: vaultCommands, pathNot: '\\.test\\.ts$' },
      to: { path: inRoom(['backup', 'tracking', 'freeze', 'nbd', 'linux']) },
    },
    {
      name: 'command-starts-fast',
      comment:
        'A command loads the code of vaults, of the daemon and of schemas with import() when it runs, so that --help and all other commands start fast.',
      severity: 'error',
      from: { path: '^src/cli/', pathNot: [loadedLater, '\\.test\\.ts$'] },
      to: {
        path: [inRoom(['vault', 'restore', 'daemon', 'api']), '^src/base/log\\.ts$', loadedLater],
        dynamic: false,
        dependencyTypesNot: ['type-only'],
      },
    },
    { name: 'no-cycle', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'product-without-tests',
      comment: 'What the product needs does not live among the tests.',
      severity: 'error',
      from: { path: '^src/', pathNot: '\\.test\\.ts$' },
      to: { path: ['^test/', '^bench/', '\\.test\\.ts$'] },
    },
    {
      name: 'declared-packages',
      comment: 'A package that is imported is declared in package.json.',
      severity: 'error',
      from: {},
      to: { dependencyTypes: ['npm-no-pkg', 'npm-unknown', 'unknown', 'undetermined'] },
    },
    {
      name: 'product-without-development-packages',
      severity: 'error',
      from: { path: '^src/', pathNot: '\\.test\\.ts$' },
      to: { dependencyTypes: ['npm-dev'], dependencyTypesNot: ['type-only'] },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'types'] },
  },
};
