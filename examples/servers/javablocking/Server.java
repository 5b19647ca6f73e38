import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;

/** A ServerSocket whose accept() blocks, a thread for each connection, and nothing for SIGTERM. */
public class Server {
    public static void main(String[] arguments) throws Exception {
        ServerSocket server = new ServerSocket(Integer.parseInt(arguments[0]), 50, InetAddress.getByName("127.0.0.1"));
        for (;;) {
            Socket client = server.accept();
            new Thread(() -> answer(client)).start();
        }
    }

    private static void answer(Socket client) {
        try (client) {
            client.getInputStream().read(new byte[4096]);
            client.getOutputStream().write(
                "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n".getBytes());
        } catch (java.io.IOException e) {
            // The client has gone.
        }
    }
}
