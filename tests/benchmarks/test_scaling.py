"""What crosses devices in a round, counted in the compiled programs."""

from benchmarks.scaling import collective_bytes, traffic

K, D = 16, 8


def test_a_round_sends_its_sums_once_however_many_samples():
    for n in (64, 256):
        sent = {row["program"]: row["bytes"] for row in traffic(8, n, K, D)}
        assert sent["add, all of an array"] == 0
        assert sent["add, sampler"] == 0
        assert sent["update"] == 4 * (K * D + 3 * K + 1)


def test_one_device_sends_nothing():
    assert {row["bytes"] for row in traffic(1, 64, K, D)} == {0}


def test_collectives_are_found_in_the_text_of_a_program():
    program = """
      %add = f32[64,512]{1,0} add(f32[64,512]{1,0} %a, f32[64,512]{1,0} %b)
      %all-reduce.1 = (f32[64]{0}, f32[64,512]{1,0}) all-reduce(%a, %b), replica_groups={{0,1}}
      %all-gather-start = f32[8,2]{1,0} all-gather-start(%c), dimensions={0}
      ROOT %permute = bf16[3]{0} collective-permute(%d), source_target_pairs={{0,1}}
      %all = (s32[2], s32[2], s32[2], s32[2], s32[2], /*index=5*/s32[2]) all-to-all(%a)
      %get = f32[64]{0} get-tuple-element(%all-reduce.1), index=0
    """
    assert collective_bytes(program) == 4 * (64 + 64 * 512) + 4 * 16 + 2 * 3 + 6 * 4 * 2
