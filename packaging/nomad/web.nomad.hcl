# nomad job run packaging/nomad/web.nomad.hcl
job "web" {
  type = "service"

  update {
    max_parallel     = 1
    canary           = 1
    auto_promote     = true
    auto_revert      = true
    min_healthy_time = "5s"
    healthy_deadline = "1m"
  }

  group "web" {
    count = 2

    # Deregistered first, told to stop 5 s later.
    shutdown_delay = "5s"

    network {
      port "http" {}
    }

    service {
      name = "web"
      port = "http"

      check {
        type     = "http"
        path     = "/"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "web" {
      driver = "exec"

      # supervise holds the port; a template with change_mode = "signal" and
      # change_signal = "SIGHUP" makes every change of configuration a rollout.
      config {
        command = "supervise"
        args    = ["--listen", ":${NOMAD_PORT_http}", "--timeout-stop", "25s", "--", "hello"]
      }

      # More than --timeout-stop.
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
