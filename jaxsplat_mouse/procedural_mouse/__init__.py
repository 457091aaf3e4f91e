"""The built-in scene: a procedural mouse with exact truth for any camera, drawn from a seed.

`make_mouse` draws an animal, `render_truth` sees it from any cameras, `walking` moves it
through its stride, and `make_scene` gives the six views that a fit starts from:

  mouse = make_mouse(seed=0, pose="walk", coat="agouti")
  views = render_truth(mouse, cameras)  # .rgba .depth .normal
  scene = make_scene(seed=0, pose="walk", coat="agouti")
"""
