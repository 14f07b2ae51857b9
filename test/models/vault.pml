/*
 * Writers, pruners and crashes of a vault (docs/formats/vault.md, "Writing a point" and "Pruning"; src/vault/writing/,
 * src/vault/prune/). One chunk that every point needs; packs are copies of it. Everybody may die before each request to the
 * store, a person forgets points, a writer that lives may be declared dead, and the lock of a pruner that lives be taken over.
 *
 * Two writers with one point each, and a pruner that runs twice; with -DTWO_PRUNERS one writer, a point that is in two packs,
 * and two pruners at once.
 *
 * Checked: as long as there is a point that its writer has seen to count, there is a pack.
 *
 * Each of these takes a part of the protocol out, and spin has to find the fault then:
 *   -DNO_WAITS             packs are deleted although writers have not ended that had begun before they were condemned
 *   -DBUILD_ON_CONDEMNED   a writer builds on packs that are condemned
 *   -DNO_LAST_LOOK         a writer does not look whether it was declared dead
 *   -DPOINTS_FIRST         a pruner reads the points before it looks which writers have ended
 *   -DNO_SECOND_LOOK       a pruner that has condemned packs does not look again before it deletes them
 *
 * Run by test/integration/models.test.ts. By hand: spin -run -safety -DDEATHS=1 -DMISTAKES=1 vault.pml
 */
#ifndef DEATHS
#define DEATHS 1
#endif
/* Writers that live and are declared dead, and locks of pruners that live and are taken over. */
#ifndef MISTAKES
#define MISTAKES 1
#endif
#ifdef TWO_PRUNERS
#define RUNS 1
#else
#define RUNS 2
#endif
#define PACKS 6
#define LISTS 2

/* The store. Sets of packs and of writers are bits. */
byte packs = 0;
byte made[3];
byte announced = 0;
byte ended = 0;
byte points = 0;
byte listed = 0;
byte list[LISTS];
byte waited = 0;
byte waits[LISTS];
/* Who holds the lock: 0 nobody, else the pruner's number. */
byte lock = 0;

/* What is true, though nobody can read it there: writers that live, and points that their writers saw to count. */
byte lives = 0;
byte counts = 0;
byte deaths = 0;
byte mistakes = 0;
/* Packs and lists are named anew each time. */
byte packsMade = 0;
byte listsMade = 0;

/* Before each request. */
#define step if :: true :: deaths < DEATHS -> deaths++; goto dead fi
#define holds assert(!(counts & points) || packs)
#define condemnedNow ((listed & 1 -> list[0] : 0) | (listed & 2 -> list[1] : 0))
/* Writers are 0 and 1, pruners 2. */
#define putPack(who) assert(packsMade < PACKS); packs = packs | (1 << packsMade); \
  made[who] = made[who] | (1 << packsMade); packsMade++

proctype writer(byte w) {
  byte condemned, index;

  announced = announced | (1 << w);
  atomic { step; condemned = condemnedNow }
#ifdef BUILD_ON_CONDEMNED
  condemned = 0;
#endif
  atomic { step; index = packs & ~condemned }
  if
  :: index
  :: else -> atomic { step; putPack(w) }
  fi;
  atomic { step; condemned = 0; index = 0; points = points | (1 << w) }
#ifdef NO_LAST_LOOK
  counts = counts | (1 << w);
#else
  atomic {
    step;
    if
    :: !(ended & (1 << w)) -> counts = counts | (1 << w); holds; goto done
    :: else
    fi
  }
  atomic { step; condemned = condemnedNow }
  atomic { step; index = packs & ~condemned }
  /* The point last: a prune that found it not whole has removed it. */
  atomic {
    step;
    if
    :: index && (points & (1 << w)) -> counts = counts | (1 << w); holds
    :: else -> points = points & ~(1 << w)
    fi
  }
#endif
done:
  atomic { step; ended = ended | (1 << w) }
dead:
  lives = lives & ~(1 << w)
}

/* A person. */
proctype forgetter() {
  do
  :: atomic { counts & points & 1 -> points = points & ~1 }
  :: atomic { counts & points & 2 -> points = points & ~2 }
  :: break
  od
}

/* Deletes the packs of a list, one by one; what is needed and in no pack that stays is copied first. */
inline carryOut(which) {
  if
  :: live && !(index & ~condemned) && index ->
    atomic {
      step;
      if
      :: packs -> putPack(2)
      :: else
      fi
    }
  :: else
  fi;
  atomic { step; if :: lock != me -> goto dead :: else fi }
  do
  :: atomic { list[which] & packs & 1 -> step; packs = packs & ~1; holds }
  :: atomic { list[which] & packs & 2 -> step; packs = packs & ~2; holds }
  :: atomic { list[which] & packs & 4 -> step; packs = packs & ~4; holds }
  :: atomic { list[which] & packs & 8 -> step; packs = packs & ~8; holds }
  :: atomic { list[which] & packs & 16 -> step; packs = packs & ~16; holds }
  :: atomic { list[which] & packs & 32 -> step; packs = packs & ~32; holds }
  :: atomic { !(list[which] & packs) -> break }
  od
}

inline declareStale(w) {
  if
  :: !(announced & (1 << w)) || (ended & (1 << w))
  :: (announced & (1 << w)) && !(lives & (1 << w)) -> ended = ended | (1 << w)
  :: (announced & (1 << w)) && (lives & (1 << w)) && mistakes < MISTAKES -> mistakes++; ended = ended | (1 << w)
  :: (announced & (1 << w)) && (lives & (1 << w))
  fi
}

/* A list without waits was put by a pruner that was cut then, or is putting them now. */
inline putWaits(which) {
  if
  :: (seen & (1 << which)) && !(had & (1 << which)) ->
    atomic { step; mine[which] = announced & ~ended }
    atomic { step; waits[which] = mine[which]; waited = waited | (1 << which) }
  :: else
  fi
}

#ifdef NO_WAITS
#define isReady(which) ((seen & (1 << which)) && (list[which] & index))
#else
#define isReady(which) ((seen & (1 << which)) && (list[which] & index) && !(mine[which] & atWork))
#endif

proctype pruner(byte me) {
  byte condemned, index, chosen, atWork, own, runs;
  /* The lists that it has read, those that had waits, and for whom they wait. */
  byte seen, had, mine[LISTS];
  bool live;

again:
  if
  :: atomic { runs == RUNS -> goto over }
  :: atomic { runs < RUNS -> runs++ }
  fi;
  if
  :: atomic { lock == 0 -> lock = me }
  :: atomic { lock != 0 && mistakes < MISTAKES -> mistakes++; lock = me }
  :: goto over
  fi;
  atomic { step; declareStale(0) }
  atomic { declareStale(1) }
  atomic { step; condemned = condemnedNow; seen = listed; had = waited; mine[0] = waits[0]; mine[1] = waits[1] }
  putWaits(0);
  putWaits(1);
#ifdef POINTS_FIRST
  live = points != 0;
#endif
  atomic { step; atWork = announced & ~ended }
  atomic { step; index = packs }
#ifndef POINTS_FIRST
  atomic { step; live = points != 0 }
#endif
  if
  :: isReady(0) -> carryOut(0)
  :: else
  fi;
  if
  :: isReady(1) -> carryOut(1)
  :: else
  fi;

  /* All that nobody needs; of what is needed one pack stays. Never packs of writers that have not ended. */
  atomic {
    chosen = index & ~condemned;
    if
    :: live && (me == 1 || !(chosen & 2)) -> chosen = chosen & (chosen - 1)
    :: live && me == 2 && (chosen & 2) -> chosen = chosen & ~2
    :: else
    fi;
    chosen = chosen & ~((atWork & 1 -> made[0] : 0) | (atWork & 2 -> made[1] : 0))
  }
  if
  :: chosen && listsMade < LISTS ->
    atomic { step; if :: lock != me -> goto dead :: else fi }
    atomic {
      step;
      own = listsMade; listsMade++; listed = listed | (1 << own); list[own] = chosen; chosen = 0
    }
    atomic { step; atWork = announced & ~ended }
    atomic { step; waits[own] = atWork; waited = waited | (1 << own) }
    if
#ifdef NO_WAITS
    :: true ->
#else
    :: !atWork ->
#endif
#ifndef NO_SECOND_LOOK
      atomic { step; condemned = condemnedNow }
      atomic { step; index = packs }
      atomic { step; live = points != 0 }
#endif
      carryOut(own)
    :: else
    fi
  :: else
  fi;
dead:
  /* The lock of one that has died is found stale. */
  atomic {
    if :: lock == me -> lock = 0 :: else fi;
    condemned = 0; index = 0; chosen = 0; atWork = 0; own = 0; live = 0;
    seen = 0; had = 0; mine[0] = 0; mine[1] = 0
  }
  goto again;
over:
  skip
}

init {
  atomic {
#ifdef TWO_PRUNERS
    packs = 3; made[2] = 3; packsMade = 2;
    announced = 2; ended = 2; points = 2; counts = 2; lives = 1;
    run writer(0); run forgetter(); run pruner(1); run pruner(2)
#else
    packs = 1; made[2] = 1; packsMade = 1;
    lives = 3;
    run writer(0); run writer(1); run forgetter(); run pruner(1)
#endif
  }
}
