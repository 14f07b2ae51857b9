/*
 * The protocol by which what a tracker has marked comes into the pending maps of two chains: take, save, commit
 * (docs/formats/chain.md, "Generations"; src/backup/ledger/dirty-map-consumer.ts, src/tracking/ebpf/tracked-device-map.ts). One block, two targets, a
 * writer, and a daemon that may die before each of its steps. Between two daemons some of the state directory's files, or
 * all, may be put back from a copy. While a job commits, the other chain's files may be unreadable.
 *
 * Checked: a job that succeeds leaves its target as the device was in the freeze; and as long as nothing was put back and
 * nothing was unreadable, each job is an incremental, however often the daemon has died.
 *
 * Each of these takes a part of the protocol out, and spin has to find the fault then:
 *   -DNO_GENERATION    nothing ties the map to the chains
 *   -DFORGET_FIRST     the map forgets before its generation changes
 *   -DONE_FILE         the generation in chain.json alone counts
 *   -DNEXT_ALONE       a chain that is given what was taken names the next generation alone
 *   -DTRUST_TARGET     the fingerprints are believed although they may be older than the target
 *
 * Run by test/integration/models.test.ts. By hand, with more jobs: spin -run -safety -DJOBS=3 take-commit.pml
 */
#ifndef JOBS
#define JOBS 2
#endif
#ifndef WRITES
#define WRITES 2
#endif
#define KILLS  1
#define COPIES 1
#define FAULTS 1

/* The kernel: the device's block, the map's two bits and its generation. They outlive the daemon. */
byte device = 0;
bool marked = 0;
bool taken = 0;
byte generation = 1;
byte writes = 0;
bool underWay = 0;
bool frozen = 0;

/* A chain's files, and the same in the copy. `pendingOf` and `recordOf`: the generations that each file names. */
typedef Files {
  bool pending;
  byte pendingOf[2];
  byte recordOf[2];
  byte print
};
Files chain[2];
Files copy[2];
byte target[2];

byte jobs = 0;
byte kills = 0;
byte copies = 0;
byte faults = 0;
byte fresh = 1;

#define names(of, g) (of[0] == g || of[1] == g)
#ifdef NO_GENERATION
#define inStep(c, g) true
#else
#ifdef ONE_FILE
#define inStep(c, g) names(chain[c].recordOf, g)
#else
#define inStep(c, g) (names(chain[c].pendingOf, g) && names(chain[c].recordOf, g))
#endif
#endif

/* Before each step that another process can see. */
#define step if :: true :: kills < KILLS -> kills++; goto dead fi

/* Two files, each written as a whole, one after the other. */
#define nameInPending(c, g, n) chain[c].pendingOf[0] = g; chain[c].pendingOf[1] = n
#define nameInRecord(c, g, n) chain[c].recordOf[0] = g; chain[c].recordOf[1] = n

/* Files copied, and put back. */
#define putPending(to, from) \
  to.pending = from.pending; to.pendingOf[0] = from.pendingOf[0]; to.pendingOf[1] = from.pendingOf[1]
#define putRecord(to, from) to.recordOf[0] = from.recordOf[0]; to.recordOf[1] = from.recordOf[1]
#define putPrint(to, from) to.print = from.print

/* A write is on the device before it is marked, and is under way until then. A freeze waits for it. */
active proctype writer() {
  do
  :: writes < WRITES ->
    atomic { !frozen -> underWay = 1; writes++; if :: device = 0 :: device = 1 fi }
    atomic { marked = 1; underWay = 0 }
  :: break
  od
}

/* What is found goes to the taken bit first, and is cleared only then. */
inline take() {
  step;
  if
  :: marked ->
    taken = 1;
    step;
    marked = 0
  :: else
  fi;
  dirty = dirty || taken
}

inline save(c, is) {
  step;
  atomic {
    chain[c].pending = chain[c].pending || is;
#ifdef NEXT_ALONE
    nameInPending(c, next, next)
#else
    nameInPending(c, generation, next)
#endif
  }
  step;
  atomic {
#ifdef NEXT_ALONE
    nameInRecord(c, next, next)
#else
    nameInRecord(c, generation, next)
#endif
  }
}

inline secure() {
  fresh++;
  next = fresh;
  if
  :: inStep(own, generation) -> save(own, dirty)
  :: else ->
    /* Compared by this job: it names a generation when the job has ended. */
    step;
    chain[own].pending = chain[own].pending || dirty
  fi;
  if
  :: inStep(1 - own, generation) ->
    if
    :: save(1 - own, dirty)
    :: faults < FAULTS -> faults++
    fi
  :: else
  fi;
#ifdef FORGET_FIRST
  step;
  taken = 0;
  step;
  generation = next;
#else
  step;
  generation = next;
  step;
  taken = 0;
#endif
  dirty = 0
}

/* The fingerprint is written when the block is sent, and counts when it is pending no more. */
inline send(value) {
  if
  :: chain[own].pending ->
    step;
    chain[own].print = value;
    step;
    target[own] = value;
    step;
    chain[own].pending = 0
  :: else
  fi
}

active proctype daemon() {
  byte own, next, read, instant, c;
  bool dirty, wholly;

  atomic {
    for (c : 0 .. 1) { nameInPending(c, generation, generation); nameInRecord(c, generation, generation) }
  }

start:
  atomic {
    dirty = 0; next = 0; read = 0; instant = 0; wholly = 0;
    if
    :: copies < COPIES ->
      copies++;
      for (c : 0 .. 1) { putPending(copy[c], chain[c]); putRecord(copy[c], chain[c]); putPrint(copy[c], chain[c]) }
    :: copies > 0 && faults < FAULTS ->
      faults++;
      if :: for (c : 0 .. 1) { putPending(chain[c], copy[c]) } :: true fi;
      if :: for (c : 0 .. 1) { putRecord(chain[c], copy[c]) } :: true fi;
      if :: for (c : 0 .. 1) { putPrint(chain[c], copy[c]) } :: true fi
    :: true
    fi;
    c = 0;
    if
    :: jobs == JOBS -> goto ended
    /* The two are alike until the first job. */
    :: else -> if :: own = 0 :: jobs > 0 -> own = 1 fi; jobs++
    fi
  }

  wholly = !inStep(own, generation);
  assert(!wholly || faults > 0);
  if
  :: wholly ->
    /* A differential: what the target holds is compared with the fingerprint, and then the device is. */
#ifndef TRUST_TARGET
    if
    :: target[own] != chain[own].print -> step; chain[own].pending = 1
    :: else
    fi;
#endif
    if
    :: device != chain[own].print -> step; chain[own].pending = 1
    :: else
    fi
  :: else ->
    take();
    secure()
  fi;
  wholly = 0;
  read = device;
  send(read);
  read = 0;

  step;
  atomic { !underWay -> frozen = 1 }
  take();
  instant = device;
  step;
  frozen = 0;
  secure();
  next = 0;
  send(instant);
  step;
  atomic { nameInPending(own, generation, generation) }
  step;
  atomic { nameInRecord(own, generation, generation) }
  assert(target[own] == instant);
  goto start;

dead:
  frozen = 0;
  goto start;

ended:
  skip
}
