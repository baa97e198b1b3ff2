# kvant memory-curve --prune on one chunk: one sequence in use, and every limit down to 5 % is met, by formats as far as they
# reach and by pruning below.
include(${CMAKE_CURRENT_LIST_DIR}/run_command.cmake)

run_command(prune memory-curve --prune --formats f32,f16 --limits 100,40,10,5 --chunks 1 --slab-bytes 16384 --no-plans)
foreach(curve 0 1)
  foreach(index RANGE 3)
    foreach(name percent limit_bytes bytes_before met bytes_after bytes_largest tokens tokens_kept perplexity plan)
      string(JSON ${name} GET "${json}" curves ${curve} points ${index} ${name})
    endforeach()
    expect(met AND tokens EQUAL 1024)
    expect(bytes_after LESS_EQUAL limit_bytes AND bytes_largest LESS_EQUAL limit_bytes)
    math(EXPR share "${bytes_before} * ${percent} / 100")
    expect(limit_bytes EQUAL share)
    # Over a cache that lost its content, or at wrong positions, the model would read much worse; with all tokens it is below 3.
    expect(perplexity GREATER 2 AND perplexity LESS 5)
    if(percent GREATER_EQUAL 40)
      expect(tokens_kept EQUAL 1024 AND NOT plan MATCHES "prune")
    else()
      # As far as formats reach, q4_0 with the mass takes 15.4 % of f32 and 30.3 % of f16.
      expect(tokens_kept LESS 1024 AND tokens_kept GREATER 68 AND plan MATCHES "prune .* to ${tokens_kept} tokens")
      string(JSON newest GET "${json}" curves ${curve} points ${index} perplexity_newest_kept)
      expect(newest GREATER 2)
    endif()
    set(kept_${curve}_${index} ${tokens_kept})
  endforeach()
  expect(kept_${curve}_3 LESS kept_${curve}_2)
endforeach()
expect(kept_1_3 LESS kept_0_3)
