"""The one door to hardware: memory meter, allocator, lanes, clock, facts, links."""
