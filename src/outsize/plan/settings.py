"""The thresholds of the planners, each with what chose it."""

from __future__ import annotations

from dataclasses import dataclass

#: Passes that are repaired one after the other, and ops over all of them for each policy of the grid: 3 to 9 sufficed on
#: the networks where any did, up to 90 for policies that ended three times as slow.
MOST_REPAIRS, REPAIRED_OPS = 200, 100_000
#: Smaller budgets that are tried before a budget is refused. Passes that failed at one of 16 parts got through at the
#: next or the one after on the steps where this was seen.
TIGHTER_BUDGETS = 16
#: Lane prices of the coarse grid, beside no swaps at all: a second of a lane is worth little where much hides, a second
#: of compute where nothing does; climbs move them by 1.7 from there.
GRID_LANE_PRICES = (0.05, 0.3, 1.0)
#: Lane price at which swaps join a plan of another action: the middle one of the grid.
MIXED_LANE_PRICE = 0.3
#: Starts that are climbed from, fastest first; a grid without swaps seldom gives more.
CLIMBED = 3
#: What is made of a storage after it has at least so many times its bytes, or it is not worth retaining: a normalised
#: result leads to an activation of the same size beside two small vectors, and the activation may stay as well.
RETAINED_GAIN = 1.1
#: Parts of what a plan makes again, dearest per byte first, that are retained together, and rounds of that.
RETAINED_PARTS, RETENTION_ROUNDS = (1.0, 0.5, 0.25, 0.1, 0.0), 8
#: Part of a budget to which the smallest one that fits is searched.
SMALLEST_WITHIN = 0.001
#: Shares of the step for which a lane is filled with the dearest recomputations of a plan without swaps. A lane that
#: writes in the forward and another that reads in the backward are each busy for half of the step at most.
LANE_SHARES = (0.06, 0.12, 0.25, 0.4)
#: A second climb makes this part of the moves: with 100 in place of 300, a U-Net's step came out 1 % shorter.
SHORT_CLIMB = 3
#: Plans, fastest first, that get their last touches.
POLISHED = 4
#: Trials of exchanges below which none is made: each that would pay is lowered and checked, a second on 10,000 ops.
FEWEST_EXCHANGES = 200
#: Local moves that must be left for each share tried: on a step of 2,489 ops, which has 10 moves, four shares took a
#: sixth of the planning time.
MOVES_A_SHARE = 5
#: Fewer positions say too little: with two, the bound of a transformer of eight blocks was a third of that with six.
FEWEST_CUTS = 2
#: Positions of the first program. More are added where a pass shows that they matter, mostly one to four.
FIRST_CUTS = 4
#: Gap, branches and rounds of programs. A gap of 1e-4 of the recomputed seconds took ten times as long as 1e-3 on a
#: captured GPT and found the same plan. With one branch, a subset sum over nine storages came out 3 % above its optimum;
#: a hundred took three times as long as one on a ResNet-50 at a third of its peak, and no longer in 17 other cases. The
#: second or the third round fitted at every position on the transformers.
FRONTIER_EFFORT = (3e-3, 100, 3)
#: A single action gets programs and annealing too unless, before them, it is more than this slower than the best plan
#: known: they make recomputation alone up to 2 % faster.
NEAR = 0.03
#: Share of the step that a plan must add for an annealing to be worth its time.
WORTH_MORE = 0.01
#: The same for programs of a plan by recomputation alone, which take 0.1 to 0.5 s on the networks seen: a U-Net at 65 %
#: of its peak went from 0.088 % of recomputation to 0.041 %, which is the least that any plan needs.
WORTH_A_PROGRAM = 2e-4
#: Stages of an annealing: part of its passes, temperature at its begin and its end as parts of the plain step. A single
#: stage from 2e-3 to 1e-4 ended as low in the mean of six networks and four seeds (0.1 % higher), but 1.2 % higher on a
#: short step; one from 1e-2 on mostly did not come back to where it had started.
STAGES = ((0.4, 4e-3, 1e-3), (0.3, 1e-3, 3e-4), (0.3, 4e-4, 1e-4))
#: An annealing lasts at most as long as this many steps' additional seconds: where it shortens them by a tenth,
#: 20,000 steps pay for it.
ANNEALED_STEPS = 2_000
#: Passes of an annealing, and ops over all of them, for each unit of effort beyond the first. With an effort of 4 the
#: plan of a ResNet-50 takes ten seconds; seven times as many passes made two plans of transformers 0 and 0.5 % shorter.
ANNEALED_PASSES = 2_000
ANNEALED_OPS = 400_000
#: What `effort` may be.
MOST_EFFORT = 8
#: Of a trial of an annealing (a pass, its placement and its score), by op of the step, on one core.
PASS_SECONDS_AN_OP = 3e-6
#: Only a safety net, far above what programs take (0.1 to 4 s of an idle core): beyond it a program is left unused, and
#: the plan would depend on how busy the machine is.
FRONTIER_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Settings of a planning run.

    Attributes:
        margin: fraction of the budget above the resident bytes that stays free, for what the model does not see
            (measured peaks came out within 1 % of predicted ones). Given up where the budget needs it.
        min_bytes: thS of method 2, storages below it are left alone. At 1.5 GB/s a transfer of 64 KiB lasts as
            long as its own latency (40 µs). Given up only where the budget cannot be met otherwise.
        min_slack: thTTS of method 2 in seconds; None takes the time of reduce + restore for the storage's size.
            Given up only where the budget cannot be met otherwise.
        lead: a read is issued early enough for `lead` times its own length, room permitting, so that a slow
            transfer still hides.
        headrooms: fractions of the non-resident budget that the swap planners try to leave free for transfers under way.
        unit_share: a recompute unit's maps take at most this share of the budget above the resident bytes, so that
            it can be rebuilt (method 4's allocation).
        moves: most local moves that `search` tries for each action alone, and again for all together; in place of 100,
            300 made plans of four networks up to 2 % shorter, and 1,000 up to another 1 % in four times as long.
        move_ops: ops over all those moves, which bounds planning time on large steps: a pass, its placement and
            its score take about 3 µs an op.
        polished_ops: ops over all trials of the last touches of one plan; four times as many changed no plan of a mixed
            search and one of eight by swaps alone.
        polish_tries: fewest trials that are worth making.
        exchanged_ops: ops over all trials of exchanges of decisions.
        effort: how long the search may look. 1: no annealing. Each unit more lets an annealing make so many passes, over
            so many ops in all (`ANNEALED_PASSES`, `ANNEALED_OPS`), and labels branch further.
        frontier_ops: ops times cuts of the largest program over a few positions; a step too large for two cuts has none.
        exact_ops: largest step that `exact` takes; HiGHS needs about 20 s at 60 ops on one core.
        exact_seconds: time limit of the solver, after which its bound and its best plan are used.
    """

    margin: float = 0.01
    min_bytes: int = 64 * 1024
    min_slack: float | None = None
    lead: float = 2.0
    unit_share: float = 0.5
    moves: int = 300
    move_ops: int = 75_000
    polished_ops: int = 100_000
    exchanged_ops: int = 1_000_000
    polish_tries: int = 25
    effort: int = 1
    frontier_ops: int = 2_600
    exact_ops: int = 64
    exact_seconds: float = 60.0
    headrooms: tuple[float, ...] = (0.0, 0.03, 0.08, 0.15, 0.25, 0.4)
