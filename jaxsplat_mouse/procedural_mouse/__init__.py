"""The built-in animal: a procedural mouse, drawn from a seed, with exact truth for any camera.

`make_mouse` draws an animal, `walking` moves it through its stride, `render_truth` renders it in
any cameras, and `make_scene` returns the six views that a fit starts from:

  mouse = make_mouse(seed=0, pose="walk", coat="agouti")
  views = render_truth(mouse, cameras)  # .rgba .depth .normal
  scene = make_scene(seed=0, pose="walk", coat="agouti")
"""
